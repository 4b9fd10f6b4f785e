"""Whether everybody can use the web chat: contrast and names (axe), keyboard, screen reader, phone, and a calm page."""

from pathlib import Path
from typing import TypedDict

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.fake_gateway import FakeGateway
from tests.browser.steps import answer, ask, conversation, finished, message_box

pytestmark = pytest.mark.browser

AXE = Path(__file__).parents[2] / "services/api-gateway/web/node_modules/axe-core/axe.min.js"
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
LOOKS = [{"color_scheme": "light"}, {"color_scheme": "dark"}, {**PHONE, "color_scheme": "light"}]


class Violation(TypedDict):
    id: str
    impact: str
    nodes: list[str]


def violations(page: Page) -> list[Violation]:
    """What axe finds that is serious or critical, and all of its contrast."""
    if not AXE.exists():
        pytest.fail("axe-core is not installed: run `npm ci` in services/api-gateway/web", pytrace=False)
    page.evaluate(AXE.read_text())
    found: list[Violation] = page.evaluate(
        """async () => (await axe.run(document)).violations.map(({id, impact, nodes}) =>
            ({id, impact, nodes: nodes.map(node => node.target.join(' ') + ' ' + node.failureSummary)}))"""
    )
    return [each for each in found if each["impact"] in {"serious", "critical"}]


@pytest.fixture(params=LOOKS, ids=["light", "dark", "phone"])
def look(request: pytest.FixtureRequest) -> dict[str, object]:
    options: dict[str, object] = request.param
    return options


def test_no_state_of_the_page_shuts_anybody_out(
    gateway: FakeGateway, open_page: OpenPage, look: dict[str, object]
) -> None:
    gateway.remember("Yesterday's question", ("q", "a"), days_ago=1)
    page = open_page(gateway.link(), **look)
    assert violations(page) == []
    ask(page, "tool gate")
    expect(answer(page)).to_contain_text("and then")
    answer(page).locator("summary").click()
    ask(page, "Queued behind it")
    expect(page.get_by_text("Queued", exact=True)).to_be_visible()
    assert violations(page) == []
    gateway.open_gates()
    finished(page)
    ask(page, "Show me some Markdown")
    expect(page.locator(".question")).to_have_count(3)
    finished(page)
    assert violations(page) == []
    ask(page, "fail")
    page.get_by_role("alert").get_by_text("Details").click()
    assert violations(page) == []
    page.get_by_role("button", name="Delete this conversation").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    if "is_mobile" in look:
        page.get_by_role("button", name="Open the list of conversations").click()
        assert violations(page) == []
    gateway.cookies.clear()
    page.reload()
    expect(page.get_by_role("heading", name="Sign in to Flotilla")).to_be_visible()
    assert violations(page) == []


def test_the_keyboard_alone_reaches_everything(gateway: FakeGateway, fake_page: Page) -> None:
    page = fake_page
    expect(message_box(page)).to_be_focused()
    page.keyboard.type("What time")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("is it?")
    expect(message_box(page)).to_have_value("What time\nis it?")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("gate")
    page.keyboard.press("Enter")
    expect(answer(page)).to_contain_text("Before the gate.")
    page.keyboard.press("Escape")
    expect(answer(page).get_by_text("Stopped", exact=True)).to_be_visible()

    page.keyboard.press("Control+k")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("link", name="New chat")).to_be_focused()
    for name in ("Operations", "Inbox", "Chat"):
        page.keyboard.press("Shift+Tab")
        expect(page.get_by_role("link", name=name, exact=True)).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Skip to the message box")).to_be_focused()
    page.keyboard.press("Enter")
    expect(message_box(page)).to_be_focused()

    page.keyboard.press("Control+k")
    page.keyboard.press("Tab")
    expect(conversation(page, "gate")).to_be_focused()
    for name in ("Rename gate", "Delete gate"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name)).to_be_focused()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Delete gate")).to_be_focused()
    assert len(gateway.sessions) == 1


def test_what_has_the_focus_can_be_seen(fake_page: Page) -> None:
    ask(fake_page, "What time is it?")
    finished(fake_page)
    shown = "e => getComputedStyle(e).outlineStyle !== 'none' || e.closest('.search, .composer-box') !== null"
    seen = set()
    for _ in range(40):
        fake_page.keyboard.press("Shift+Tab")
        focused = fake_page.locator(":focus")
        if focused.count() == 0:
            break
        assert focused.evaluate(shown), focused.evaluate("e => e.outerHTML")
        seen.add(focused.evaluate("e => e.getAttribute('aria-label') ?? e.innerText"))
    assert {"New chat", "Search conversations", "Conversation", "Rename this conversation"} <= seen


def test_a_screen_reader_hears_paragraphs_and_not_tokens(fake_page: Page) -> None:
    fake_page.evaluate("""() => {
        window.heard = 0;
        new MutationObserver(changes => { window.heard += changes.length })
            .observe(document.querySelector('[role=log]'), {childList: true, subtree: true, characterData: true});
    }""")
    ask(fake_page, "Tell me a long story")
    finished(fake_page)
    log = fake_page.get_by_role("log")
    expect(log.get_by_text("The answer is complete.")).to_have_count(1)
    expect(log.get_by_text("Chapter 3. The harbour of boat 3")).to_have_count(1)
    heard = fake_page.evaluate("() => window.heard")
    assert 16 <= heard <= 60, "one change a paragraph, of some 700 tokens"


def test_a_phone_has_the_list_in_a_drawer(gateway: FakeGateway, open_page: OpenPage) -> None:
    gateway.remember("Tide tables", ("When?", "At noon."), days_ago=1)
    page = open_page(gateway.link(), **PHONE)
    opener = page.get_by_role("button", name="Open the list of conversations")
    expect(conversation(page, "Tide tables")).to_be_hidden()
    opener.click()
    expect(page.get_by_role("link", name="New chat").first).to_be_focused()
    conversation(page, "Tide tables").click()
    expect(page.locator(".bubble")).to_have_text("When?")
    expect(conversation(page, "Tide tables")).to_be_hidden()
    opener.click()
    page.keyboard.press("Escape")
    expect(opener).to_be_focused()
    wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "nothing sticks out at the side"


def test_reading_further_up_is_not_disturbed_by_an_answer(fake_page: Page) -> None:
    ask(fake_page, "Tell me a long story")
    fake_page.locator(".prose > p").nth(6).wait_for()
    box = fake_page.locator(".scroll")
    assert box.evaluate("b => b.scrollHeight - b.clientHeight - b.scrollTop") < 8, "it follows at the end"
    box.hover()
    fake_page.mouse.wheel(0, -300)
    latest = fake_page.get_by_role("button", name="Latest")
    expect(latest).to_be_visible()
    place = box.evaluate("b => b.scrollTop")
    fake_page.locator(".prose > p").nth(9).wait_for()
    assert box.evaluate("b => b.scrollTop") == place
    latest.click()
    expect(latest).to_be_hidden()
    finished(fake_page)
    assert box.evaluate("b => b.scrollHeight - b.clientHeight - b.scrollTop") < 8


def test_what_was_read_stays_in_its_place_while_an_answer_streams(fake_page: Page) -> None:
    fake_page.evaluate("""() => {
        window.moved = [];
        const moves = entry => entry.sources
            .filter(({node, previousRect, currentRect}) => node?.closest?.('.prose, .composer, .header')
                && Math.abs(previousRect.y - currentRect.y) > 1)
            .map(({node, previousRect, currentRect}) => `${node.innerText} ${previousRect.y} ${currentRect.y}`);
        new PerformanceObserver(list => { window.moved.push(...list.getEntries().flatMap(moves)) })
            .observe({type: 'layout-shift', buffered: false});
    }""")
    ask(fake_page, "table slowly")
    finished(fake_page)
    assert fake_page.evaluate("() => window.moved") == []


def test_the_theme_follows_the_system_until_it_is_chosen(open_page: OpenPage, fake_link: str) -> None:
    page = open_page(fake_link, color_scheme="dark")
    ground = "() => getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert dark != light
    page.get_by_role("button", name="Use the dark theme").click()
    assert page.evaluate(ground) == dark
    page.reload()
    message_box(page).wait_for()
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Use the light theme").click()
    assert page.evaluate(ground) == light


def test_nothing_moves_for_those_who_asked_for_that(open_page: OpenPage, fake_link: str) -> None:
    page = open_page(fake_link, reduced_motion="reduce")
    ask(page, "gate")
    expect(answer(page)).to_contain_text("Before the gate.")
    moving = page.evaluate(
        "() => document.getAnimations().filter(a => a.playState === 'running').map(a => a.animationName)"
    )
    assert moving == []


def test_the_keys_work_from_the_moment_the_page_is_drawn(fake_page: Page) -> None:
    fake_page.add_init_script("""
        new MutationObserver((_, watching) => {
            if (document.querySelector('[type=search]') === null) return;
            watching.disconnect();
            const press = new KeyboardEvent('keydown', {key: 'k', ctrlKey: true, bubbles: true, cancelable: true});
            document.activeElement.dispatchEvent(press);
        }).observe(document, {childList: true, subtree: true});
    """)
    fake_page.reload()
    expect(fake_page.get_by_role("searchbox")).to_be_focused()
    fake_page.wait_for_timeout(300)  # what comes after drawing comes within 100 ms
    expect(fake_page.get_by_role("searchbox")).to_be_focused()

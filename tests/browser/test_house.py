"""Operations in the browser: dead letters are read, replayed and discarded, and runs are shown with their steps."""

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.fake_gateway import FakeGateway
from tests.browser.fake_operations import letter, run, waterfall
from tests.browser.steps import answer, ask, finished, message_box
from tests.browser.test_looks import LOOKS, violations
from tests.fleets import Fleet

pytestmark = pytest.mark.browser


def keep_letters(gateway: FakeGateway, *letters: dict[str, object]) -> None:
    gateway.operations.letters.update({str(one["id"]): one for one in letters})


def test_dead_letter_is_shown_with_its_content_only_on_demand(gateway: FakeGateway, fake_page: Page) -> None:
    keep_letters(gateway, letter("request.created", "the event carries no turn"))
    fake_page.get_by_role("link", name="Operations").click()
    fake_page.get_by_role("link", name="request.created").click()
    expect(fake_page.get_by_role("heading", name="flotilla.request.created.v1")).to_be_visible()
    expect(fake_page.get_by_text("Which berth is free?")).to_have_count(0)
    fake_page.get_by_role("button", name="Show its content").click()
    expect(fake_page.get_by_text("Which berth is free?")).to_be_visible()


def test_dead_letters_are_replayed_and_discarded_with_a_reason(gateway: FakeGateway, fake_page: Page) -> None:
    first, second = letter("request.created", "no turn"), letter("response.ready", "too large", minutes=9)
    keep_letters(gateway, first, second)
    fake_page.get_by_role("link", name="Operations").click()
    fake_page.get_by_role("link", name="request.created").click()
    fake_page.get_by_role("button", name="Replay").click()
    expect(fake_page.get_by_text("It is replayed.")).to_be_visible()
    expect(fake_page.locator(".entries li")).to_have_count(1)
    fake_page.get_by_role("link", name="response.ready").click()
    discard = fake_page.get_by_role("button", name="Discard")
    expect(discard).to_be_disabled()
    fake_page.get_by_role("textbox", name="Reason to discard it").fill("an old test")
    discard.click()
    expect(fake_page.get_by_role("heading", name="No dead letters")).to_be_visible()
    assert gateway.operations.settled == [(first["id"], "replay", ""), (second["id"], "discard", "an old test")]


def test_refused_list_says_why_and_is_asked_again(gateway: FakeGateway, fake_page: Page) -> None:
    keep_letters(gateway, letter("request.created", "no turn"))
    gateway.faults.refusals.append(("GET /api/v1/dead-letters", 503))
    fake_page.get_by_role("link", name="Operations").click()
    fake_page.get_by_role("alert").get_by_role("button", name="Try again").click()
    expect(fake_page.get_by_role("link", name="request.created")).to_be_visible()


def test_runs_show_state_tries_epochs_and_their_steps(gateway: FakeGateway, fake_page: Page) -> None:
    whole, failed = waterfall(), run("failed", epoch=6, tries=6, reason="internal")
    gateway.operations.run_reports.update({str(one["request_id"]): one for one in (whole, failed)})
    fake_page.get_by_role("link", name="Operations").click()
    fake_page.get_by_role("link", name="Runs").click()
    expect(fake_page.locator(".entries")).to_contain_text("internal · 6 epochs · 6 tries")
    fake_page.locator(".entries a").first.click()
    steps = fake_page.locator(".waterfall li")
    expect(steps).to_have_count(4)
    expect(steps.nth(2)).to_contain_text("failed, epoch 1")
    expect(steps.nth(3)).to_contain_text("epoch 2")
    lefts = [box["x"] for bar in fake_page.locator(".step-line i").all() if (box := bar.bounding_box())]
    assert lefts == sorted(lefts), "later steps stand further right"
    assert lefts[0] < lefts[1] < lefts[3]


def test_real_run_is_listed_with_its_steps(demo_fleet: Fleet, fleet_link: str, open_page: OpenPage) -> None:
    page = open_page(fleet_link)
    ask(page, "What is 12.5 % of 480?")
    finished(page)
    page.get_by_role("link", name="Operations").click()
    page.get_by_role("link", name="Runs").click()
    page.locator(".entries a").first.click()
    expect(page.locator(".waterfall li")).to_have_count(3)
    expect(page.locator(".waterfall")).to_contain_text("calculator")


def test_conversation_from_elsewhere_is_marked_in_the_list(
    demo_fleet: Fleet, fleet_link: str, open_page: OpenPage
) -> None:
    headers = {"Authorization": f"Bearer {demo_fleet.key}", "Prefer": "wait=20"}
    with httpx.Client(base_url=demo_fleet.urls[0], headers=headers, timeout=30) as client:
        client.post("/api/v1/requests", json={"content": "Over the API"}).raise_for_status()
        mark = {"User-Agent": "flotilla-cli"}
        client.post("/api/v1/requests", json={"content": "From a terminal"}, headers=mark).raise_for_status()
    page = open_page(fleet_link)
    row = page.locator(".row")
    expect(row.filter(has_text="Over the API").locator(".tag")).to_have_text("API")
    expect(row.filter(has_text="From a terminal").locator(".tag")).to_have_text("CLI")


def test_failed_tool_says_so_before_and_after_a_reload(fake_page: Page) -> None:
    ask(fake_page, "failing tool")
    finished(fake_page)
    for _ in range(2):
        card = answer(fake_page).locator("details.tool")
        expect(card.get_by_text("Failed", exact=True)).to_be_visible()
        card.locator("summary").click()
        expect(card.get_by_text("Error", exact=True)).to_be_visible()
        fake_page.reload()
        finished(fake_page)


def test_reasoning_is_folded(fake_page: Page) -> None:
    ask(fake_page, "failing tool")
    finished(fake_page)
    thought = fake_page.get_by_text("The person wants the tide at a harbour.")
    expect(thought).to_be_hidden()
    fake_page.get_by_text("Reasoning", exact=True).click()
    expect(thought).to_be_visible()


def test_text_that_is_too_long_is_neither_cut_nor_sent(gateway: FakeGateway, fake_page: Page) -> None:
    box = message_box(fake_page)
    box.fill("x" * 131_075)
    expect(fake_page.get_by_text("3 characters too many")).to_be_visible()
    box.press("Enter")
    assert len(box.input_value()) == 131_075
    assert gateway.runs == {}
    box.fill("\U0001f6a2" * 131_072)  # characters count, not UTF-16 units
    expect(fake_page.get_by_text("too many")).to_have_count(0)


def test_retry_now_ends_the_pause(gateway: FakeGateway, fake_page: Page) -> None:
    gateway.faults.cuts.append(3)
    gateway.faults.refusals.extend([("GET /chat/", 503)] * 4)
    ask(fake_page, "Tell me a long story")
    retry = fake_page.get_by_role("button", name="Retry now")
    while gateway.faults.refusals:
        retry.click()
        fake_page.wait_for_timeout(20)
    retry.click()
    finished(fake_page)


def test_shortcuts_are_listed(fake_page: Page) -> None:
    fake_page.keyboard.press("Control+/")
    expect(fake_page.get_by_role("dialog").get_by_text("Search conversations")).to_be_visible()
    fake_page.keyboard.press("Escape")
    fake_page.get_by_role("button", name="List the keyboard shortcuts").click()
    expect(fake_page.get_by_role("heading", name="Keyboard shortcuts")).to_be_visible()


@pytest.mark.parametrize("look", LOOKS, ids=["light", "dark", "phone"])
def test_no_page_of_the_house_shuts_anybody_out(
    gateway: FakeGateway, open_page: OpenPage, look: dict[str, object]
) -> None:
    whole = waterfall()
    gateway.operations.run_reports[str(whole["request_id"])] = whole
    kept = letter("request.created", "the event carries no turn")
    keep_letters(gateway, kept)
    page = open_page(gateway.link(), **look)
    ask(page, "failing tool")
    finished(page)
    answer(page).get_by_role("button", name="Regenerate").click()
    expect(page.locator(".branches")).to_be_visible()
    finished(page)
    answer(page).get_by_role("button", name="Details").click()
    assert violations(page) == []
    page.locator(".question").last.hover()
    page.get_by_role("button", name="Edit this message and send it again").click()
    assert violations(page) == []
    for address in (
        "inbox",
        "operations/dead-letters",
        f"operations/dead-letters/{kept['id']}",
        "operations/runs",
        f"operations/runs/{whole['request_id']}",
    ):
        page.evaluate("address => { location.hash = `#/${address}` }", address)
        expect(page.locator(".page")).to_be_visible()
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
        assert violations(page) == []
        wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, "nothing sticks out at the side"

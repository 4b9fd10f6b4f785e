"""Pictures of the web chat in the states that matter, for looking at: `python -m tests.browser.screenshots build/web`.

Run it after a change of the page's looks; no test compares the pictures, people do.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.chromium import launch
from tests.browser.fake_gateway import FakeGateway
from tests.browser.fake_operations import letter, run, step, waterfall

SIZES = {"light": (1280, 860), "dark": (1280, 860), "phone": (390, 844)}


@contextmanager
def visit(browser: Browser, gateway: FakeGateway, look: str) -> Iterator[Page]:
    width, height = SIZES[look]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if look == "dark" else "light",
        device_scale_factor=1.5,
        has_touch=look == "phone",
        is_mobile=look == "phone",
    )
    page = context.new_page()
    page.goto(gateway.link())
    page.get_by_role("textbox", name="Message").wait_for()
    yield page
    context.close()


def ask(page: Page, text: str) -> None:
    box = page.get_by_role("textbox", name="Message")
    box.fill(text)
    box.press("Enter")


def past(gateway: FakeGateway) -> None:
    gateway.remember("Which berth is free tonight?", ("Which berth is free tonight?", "Berth 4."), days_ago=0.1)
    gateway.remember("Draft a letter to the harbour master", ("Draft it", "Dear …"), days_ago=1)
    gateway.remember("Compare the three quotes for new sails and say which one is best", ("Compare", "…"), days_ago=1.2)
    gateway.remember("Weekly report", ("Report", "Berth 7 was paid for twice."), days_ago=4, channel="api")
    gateway.remember("Which lamps need oil?", ("Which lamps need oil?", "The third."), days_ago=5, channel="cli")
    gateway.remember("Tide tables for March", ("Tides", "…"), days_ago=40)


def show_empty(page: Page, _: FakeGateway) -> None:
    page.get_by_text("What can I do for you?").wait_for()


def show_streaming(page: Page, _: FakeGateway) -> None:
    ask(page, "tool gate")
    page.locator(".prose").get_by_text("and then").wait_for()
    page.locator("details.tool summary").click()


def show_queued(page: Page, _: FakeGateway) -> None:
    ask(page, "gate")
    page.locator(".prose").get_by_text("Before the gate.").wait_for()
    ask(page, "And what comes after that?")
    page.get_by_text("Queued", exact=True).wait_for()


def show_markdown(page: Page, _: FakeGateway) -> None:
    ask(page, "What time is it?")
    page.get_by_role("button", name="Regenerate").wait_for()
    ask(page, "Show me some Markdown")
    page.locator(".answer").nth(1).get_by_role("button", name="Regenerate").wait_for()


def show_error(page: Page, gateway: FakeGateway) -> None:
    ask(page, "fail")
    page.get_by_text("The model did not answer").wait_for()
    gateway.faults.refusals.append(("POST /chat", 422))
    ask(page, "And this is refused")
    page.get_by_role("button", name="Send again").wait_for()
    page.get_by_text("Details").last.click()


def show_reconnecting(page: Page, gateway: FakeGateway) -> None:
    gateway.faults.cuts.append(9)
    gateway.faults.refusals.extend([("GET /chat/", 503)] * 50)
    ask(page, "Tell me a long story")
    page.get_by_text("Reconnecting").wait_for()
    page.wait_for_timeout(1200)
    gateway.faults.refusals.clear()


def show_delete(page: Page, _: FakeGateway) -> None:
    ask(page, "What is 12.5 % of 480?")
    page.get_by_role("button", name="Regenerate").wait_for()
    page.get_by_role("button", name="Delete this conversation").click()


def show_list(page: Page, _: FakeGateway) -> None:
    page.get_by_role("textbox", name="Message").wait_for()
    button = page.get_by_role("button", name="Open the list of conversations")
    if button.is_visible():
        button.click()
        page.wait_for_timeout(400)


def show_away(page: Page, _: FakeGateway) -> None:
    ask(page, "Tell me a long story")
    page.locator(".prose").get_by_text("Chapter 14.").wait_for()
    page.locator(".scroll").evaluate("box => box.scrollTo(0, 0)")
    page.get_by_role("button", name="Latest").wait_for()


def show_tool_after_reload(page: Page, _: FakeGateway) -> None:
    ask(page, "What time is it?")
    page.get_by_role("button", name="Regenerate").wait_for()
    page.reload()
    page.locator("details.tool summary").click()
    page.get_by_role("button", name="Details").click()


def show_failed_tool(page: Page, _: FakeGateway) -> None:
    ask(page, "failing tool")
    page.get_by_role("button", name="Regenerate").wait_for()
    page.reload()
    page.locator("details.tool summary").click()
    page.get_by_text("Reasoning", exact=True).click()


def show_stopped(page: Page, _: FakeGateway) -> None:
    ask(page, "gate")
    page.locator(".prose").get_by_text("Before the gate.").wait_for()
    page.get_by_role("button", name="Stop answering").click()
    page.get_by_text("Stopped", exact=True).wait_for()
    page.reload()
    page.get_by_text("Stopped", exact=True).wait_for()


def show_branches(page: Page, _: FakeGateway) -> None:
    ask(page, "What is 12.5 % of 480?")
    page.get_by_role("button", name="Regenerate").wait_for()
    page.get_by_role("button", name="Regenerate").click()
    page.get_by_text("2/2").wait_for()
    page.get_by_role("button", name="Regenerate").wait_for()


def show_edit(page: Page, gateway: FakeGateway) -> None:
    show_branches(page, gateway)
    page.locator(".question").hover()
    page.get_by_role("button", name="Edit this message and send it again").click()


def show_too_long(page: Page, _: FakeGateway) -> None:
    page.get_by_role("textbox", name="Message").fill("A very long text. " * 7300)
    page.get_by_text("characters too many").wait_for()


def show_search(page: Page, _: FakeGateway) -> None:
    show_list(page, _)
    page.get_by_role("searchbox").fill("berth")
    page.get_by_text("In what was said").wait_for()


def show_keys(page: Page, _: FakeGateway) -> None:
    page.get_by_role("textbox", name="Message").wait_for()
    page.keyboard.press("Control+/")
    page.get_by_role("heading", name="Keyboard shortcuts").wait_for()


def go(page: Page, address: str) -> None:
    page.get_by_role("textbox", name="Message").wait_for()
    page.evaluate("address => { location.hash = `#/${address}` }", address)
    page.locator(".page").wait_for()
    page.wait_for_timeout(300)


def operations(gateway: FakeGateway) -> tuple[str, str]:
    """Put dead letters and runs into the store; the ids of one of each."""
    letters = [
        letter("request.created", "the event carries no turn or no expirytime", minutes=4),
        letter("response.ready", "IntegrityConstraintViolationError after 8 tries", service="request-manager"),
        letter("action.completed", "no version 7 of this type is known here; parked for 24 h", minutes=190),
    ]
    runs = [
        waterfall(),
        run("running", step("model:1", "gpt-5-mini", 0, 2.2)),
        run("failed", epoch=6, tries=6, reason="internal"),
        run("cancelled", step("model:1", "gpt-5-mini", 0, 1.2), reason="cancelled_by_caller"),
    ]
    gateway.operations.letters.update({str(one["id"]): one for one in letters})
    gateway.operations.run_reports.update({str(one["request_id"]): one for one in runs})
    return str(letters[0]["id"]), str(runs[0]["request_id"])


def show_inbox(page: Page, _: FakeGateway) -> None:
    go(page, "inbox")


def show_letters(page: Page, gateway: FakeGateway) -> None:
    operations(gateway)
    go(page, "operations/dead-letters")


def show_letter(page: Page, gateway: FakeGateway) -> None:
    go(page, f"operations/dead-letters/{operations(gateway)[0]}")
    page.get_by_role("button", name="Show its content").click()


def show_runs(page: Page, gateway: FakeGateway) -> None:
    operations(gateway)
    go(page, "operations/runs")


def show_waterfall(page: Page, gateway: FakeGateway) -> None:
    go(page, f"operations/runs/{operations(gateway)[1]}")


STATES = {
    "tool-after-reload": show_tool_after_reload,
    "failed-tool": show_failed_tool,
    "stopped": show_stopped,
    "branches": show_branches,
    "edit": show_edit,
    "too-long": show_too_long,
    "search": show_search,
    "keys": show_keys,
    "inbox": show_inbox,
    "dead-letters": show_letters,
    "dead-letter": show_letter,
    "runs": show_runs,
    "run": show_waterfall,
    "empty": show_empty,
    "streaming": show_streaming,
    "queued": show_queued,
    "markdown": show_markdown,
    "error": show_error,
    "reconnecting": show_reconnecting,
    "delete": show_delete,
    "list": show_list,
    "away": show_away,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("states", nargs="*", help=f"some of {', '.join(STATES)}, signin; all when left out")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, launch(playwright) as browser:
        for look in SIZES:
            for state, show in STATES.items():
                if options.states and state not in options.states:
                    continue
                with FakeGateway() as gateway, visit(browser, gateway, look) as page:
                    past(gateway)
                    page.reload()
                    show(page, gateway)
                    page.wait_for_timeout(300)
                    page.screenshot(path=options.folder / f"{state}-{look}.png")
                    gateway.open_gates()
        if not options.states or "signin" in options.states:
            with FakeGateway() as gateway:
                page = browser.new_page(viewport={"width": 1280, "height": 860})
                page.goto(gateway.url)
                page.get_by_text("Sign in to Flotilla").wait_for()
                page.screenshot(path=options.folder / "signin-light.png")


if __name__ == "__main__":
    main()

"""What a person does with the web chat from the first click on; holds for the fake gateway and the real fleet alike."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.steps import (
    answer,
    ask,
    conversation,
    finished,
    message_box,
    open_again,
    shown_text,
    start_another,
    words,
)

# A sample plays each journey either before a gateway of the test or in the whole fleet.
pytestmark = [pytest.mark.browser, pytest.mark.sampled(1)]

MARKDOWN = "Show me some Markdown"
STORY = "Tell me a long story"
CLOCK = "What time is it?"


def told(page: Page) -> str:
    """The newest answer as the server keeps it."""
    session = page.url.rsplit("/", 1)[-1]
    read = "async path => (await (await fetch(path)).json()).messages.at(-1).content"
    content: str = page.evaluate(read, f"/api/v1/sessions/{session}/messages?limit=100")
    return content


def test_the_link_signs_in_and_leaves_no_code_behind(page: Page) -> None:
    assert "code" not in page.url
    expect(page.get_by_role("heading", name="What can I do for you?")).to_be_visible()
    stored = page.evaluate("() => JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")
    assert stored == "{}"
    page.go_back()
    assert "code" not in page.url


def test_a_used_link_says_how_to_get_another(open_page: OpenPage, login_link: str) -> None:
    open_page(login_link)
    stranger = open_page(login_link, ready=False)
    expect(stranger.get_by_role("heading", name="This link does not work any more")).to_be_visible()
    expect(stranger.get_by_text("./flotilla link", exact=True)).to_be_visible()
    assert "code" not in stranger.url


def test_an_example_is_asked_with_a_click_and_answered_with_a_tool_call(page: Page) -> None:
    page.get_by_role("button", name="What is 12.5 % of 480?").click()
    finished(page)
    expect(answer(page)).to_contain_text("60")
    card = answer(page).locator("details.tool")
    expect(card).to_have_count(1)
    expect(card.get_by_text("Arguments", exact=True)).to_be_hidden()
    card.locator("summary").click()
    expect(card.get_by_text("Arguments", exact=True)).to_be_visible()
    expect(card.locator("pre").last).to_contain_text("60")


def test_markdown_becomes_tables_lists_and_code_that_can_be_copied(page: Page) -> None:
    ask(page, MARKDOWN)
    finished(page)
    expect(answer(page).locator("table th").first).to_be_visible()
    expect(answer(page).locator("ul, ol").first).to_be_visible()
    code = answer(page).locator("figure.code").first
    code.get_by_role("button", name="Copy this code").click()
    expect(code.get_by_text("Copied").first).to_be_visible()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == code.locator("code").inner_text()
    answer(page).get_by_role("button", name="Copy this answer").click()
    assert page.evaluate("() => navigator.clipboard.readText()").strip() == told(page).strip()


def test_a_reload_in_mid_answer_goes_on_and_shows_each_word_once(page: Page) -> None:
    ask(page, STORY)
    page.locator(".prose > p").nth(1).wait_for()
    page.reload()
    expect(page.get_by_role("button", name="Stop answering")).to_be_visible()
    page.locator(".prose > p").nth(3).wait_for()
    page.reload()
    finished(page)
    assert words(shown_text(page)) == words(told(page))


def test_stop_ends_a_long_answer_and_keeps_what_was_said(page: Page) -> None:
    ask(page, STORY)
    page.locator(".prose > p").nth(1).wait_for()
    page.keyboard.press("Escape")
    expect(answer(page).get_by_text("Stopped", exact=True)).to_be_visible()
    expect(answer(page).locator(".prose > p").first).not_to_be_empty()
    expect(page.get_by_role("button", name="Stop answering")).to_be_hidden()


def test_a_second_message_waits_for_the_first_and_is_answered_after_it(page: Page) -> None:
    ask(page, STORY)
    page.locator(".prose > p").first.wait_for()
    ask(page, CLOCK)
    expect(page.get_by_text("Queued", exact=True)).to_be_visible()
    page.get_by_role("button", name="Stop answering").click()
    expect(page.get_by_text("Queued", exact=True)).to_be_hidden()
    finished(page)
    expect(page.locator(".answer-body")).to_have_count(2)
    expect(answer(page).locator("details.tool")).to_have_count(1)


def test_a_queued_message_can_be_taken_back(page: Page) -> None:
    ask(page, STORY)
    page.locator(".prose > p").first.wait_for()
    ask(page, CLOCK)
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator(".answer-body").last.get_by_text("Stopped", exact=True)).to_be_visible(timeout=15_000)
    expect(page.locator("details.tool")).to_have_count(0)


def version(page: Page) -> Locator:
    return page.locator(".branches [role=status]")


def test_regenerate_makes_a_second_version_and_both_can_be_read(page: Page) -> None:
    ask(page, "Hello there")
    finished(page)
    ask(page, CLOCK)
    finished(page)
    answer(page).get_by_role("button", name="Regenerate").click()
    expect(version(page)).to_have_text("2/2")
    finished(page)
    expect(page.locator(".bubble")).to_have_text(["Hello there", CLOCK])
    page.get_by_role("button", name="Show the version before").click()
    expect(version(page)).to_have_text("1/2")
    ask(page, "Hello again")
    finished(page)
    expect(page.locator(".bubble")).to_have_text(["Hello there", CLOCK, "Hello again"])
    page.reload()
    finished(page)
    expect(version(page)).to_have_text("1/2")
    expect(page.locator(".bubble")).to_have_text(["Hello there", CLOCK, "Hello again"])
    page.get_by_role("button", name="Show the version after").click()
    expect(page.locator(".bubble")).to_have_text(["Hello there", CLOCK])


def test_edit_happens_in_the_messages_place_and_escape_gives_it_up(page: Page) -> None:
    ask(page, CLOCK)
    finished(page)
    message_box(page).fill("a draft")
    page.locator(".question").last.hover()
    page.get_by_role("button", name="Edit this message and send it again").click()
    box = page.get_by_role("textbox", name="Edit your message")
    expect(box).to_be_focused()
    expect(box).to_have_value(CLOCK)
    box.fill("something else")
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()
    expect(page.locator(".bubble")).to_have_text([CLOCK])
    expect(version(page)).to_have_count(0)
    page.locator(".question").last.hover()
    page.get_by_role("button", name="Edit this message and send it again").click()
    box.fill("Hello there")
    box.press("Enter")
    expect(page.locator(".bubble")).to_have_text(["Hello there"])
    expect(version(page)).to_have_text("2/2")
    finished(page)
    expect(message_box(page)).to_have_value("a draft")


def test_tool_calls_and_the_words_before_them_are_there_after_a_reload(page: Page) -> None:
    ask(page, CLOCK)
    finished(page)
    before = answer(page).locator(".prose, details.tool summary").all_inner_texts()
    assert len(before) == 3, "words, a tool, and the answer"
    page.reload()
    finished(page)
    assert answer(page).locator(".prose, details.tool summary").all_inner_texts() == before
    answer(page).locator("details.tool summary").click()
    expect(answer(page).locator("details.tool").get_by_text("Result", exact=True)).to_be_visible()


def test_text_before_a_stop_is_there_after_a_reload_and_marked(page: Page) -> None:
    ask(page, STORY)
    page.locator(".prose > p").nth(1).wait_for()
    page.keyboard.press("Escape")
    expect(answer(page).get_by_text("Stopped", exact=True)).to_be_visible()
    shown = shown_text(page)
    page.reload()
    expect(answer(page).get_by_text("Stopped", exact=True)).to_be_visible()
    assert words(shown_text(page)) == words(shown)


def test_details_tell_agent_model_and_tokens_on_demand(page: Page) -> None:
    ask(page, CLOCK)
    finished(page)
    expect(page.get_by_text("Tokens out")).to_have_count(0)
    answer(page).get_by_role("button", name="Details").click()
    for name in ("Agent", "Model", "Revision", "Tokens in", "Tokens out", "Took"):
        expect(answer(page).get_by_text(name, exact=True)).to_be_visible()


def test_search_finds_what_was_said(page: Page) -> None:
    ask(page, "Hello there")
    finished(page)
    ask(page, "The lighthouse of Alexandria")
    finished(page)
    start_another(page)
    page.keyboard.press("Control+k")
    page.keyboard.type("of alexandria")
    expect(conversation(page, "Hello there")).to_be_visible()
    expect(page.get_by_text("In what was said")).to_be_visible()
    page.get_by_role("searchbox").fill("of atlantis")
    expect(page.get_by_text("No conversation has this in its name or in what was said.")).to_be_visible()


def test_signing_out_leaves_nothing_behind(page: Page) -> None:
    ask(page, "Hello there")
    finished(page)
    message_box(page).fill("a secret draft")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    assert page.evaluate("() => Object.keys(localStorage).filter(name => name !== 'flotilla.theme')") == []
    page.reload()
    expect(page.get_by_role("heading", name="Sign in to Flotilla")).to_be_visible()


def test_the_house_has_an_inbox_and_operations_and_the_way_back(page: Page) -> None:
    ask(page, "Hello there")
    finished(page)
    page.get_by_role("link", name="Inbox").click()
    expect(page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
    page.get_by_role("link", name="Operations").click()
    expect(page.get_by_role("heading", name="No dead letters")).to_be_visible()
    page.get_by_role("link", name="Runs").click()
    page.reload()
    expect(page.get_by_role("link", name="Runs")).to_have_attribute("aria-current", "page")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Chat").click()
    expect(message_box(page)).to_be_visible()


def test_a_conversation_is_listed_found_renamed_and_deleted(page: Page) -> None:
    ask(page, CLOCK)
    finished(page)
    start_another(page)
    ask(page, "Hello there")
    finished(page)
    open_again(page, CLOCK)
    expect(page.get_by_role("heading", level=1)).to_have_text(CLOCK)

    page.get_by_role("button", name="Rename this conversation").click()
    page.get_by_role("textbox", name="Name").fill("About the clock")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("About the clock")
    page.reload()
    expect(conversation(page, "About the clock")).to_be_visible()

    page.keyboard.press("Control+k")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("CLOCK about")
    expect(conversation(page, "Hello there")).to_be_hidden()
    expect(conversation(page, "About the clock")).to_be_visible()
    page.get_by_role("searchbox").fill("")

    page.get_by_role("button", name="Delete this conversation").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(conversation(page, "About the clock")).to_have_count(0)
    expect(page.get_by_role("heading", name="What can I do for you?")).to_be_visible()
    page.reload()
    expect(conversation(page, "Hello there")).to_be_visible()
    expect(conversation(page, "About the clock")).to_have_count(0)


def test_leaving_a_running_conversation_and_coming_back_loses_nothing(page: Page) -> None:
    ask(page, STORY)
    page.locator(".prose > p").nth(1).wait_for()
    start_another(page)
    ask(page, CLOCK)
    finished(page)
    open_again(page, STORY)
    finished(page)
    assert words(shown_text(page)) == words(told(page))


def test_drafts_are_kept_for_each_conversation_and_over_a_reload(page: Page) -> None:
    ask(page, CLOCK)
    finished(page)
    message_box(page).fill("for the first one")
    start_another(page)
    expect(message_box(page)).to_have_value("")
    message_box(page).fill("for a new one\nwith two lines")
    open_again(page, CLOCK)
    expect(message_box(page)).to_have_value("for the first one")
    page.reload()
    expect(message_box(page)).to_have_value("for the first one")
    start_another(page)
    expect(message_box(page)).to_have_value("for a new one\nwith two lines")


def test_two_tabs_show_one_conversation(page: Page) -> None:
    ask(page, CLOCK)
    finished(page)
    other = page.context.new_page()
    other.goto(page.url)
    finished(other)
    ask(page, STORY)
    other.locator(".prose > p").nth(2).wait_for()
    other.get_by_role("button", name="Stop answering").click()
    for tab in (page, other):
        expect(answer(tab).get_by_text("Stopped", exact=True)).to_be_visible()
        expect(tab.locator(".bubble")).to_have_text([CLOCK, STORY])
    assert shown_text(page) == shown_text(other)
    ask(other, "Hello from here")
    finished(other)
    expect(page.locator(".bubble")).to_have_text([CLOCK, STORY, "Hello from here"])
    finished(page)


def test_back_leads_to_the_conversation_before(page: Page) -> None:
    ask(page, CLOCK)
    finished(page)
    start_another(page)
    page.go_back()
    expect(page.locator(".bubble")).to_have_text(CLOCK)


def test_the_address_of_a_conversation_that_is_gone_says_so(page: Page) -> None:
    page.goto(re.sub(r"#.*|$", "#/c/00000000-0000-7000-8000-000000000000", page.url, count=1))
    expect(page.get_by_role("alert")).to_contain_text("There is no such session")

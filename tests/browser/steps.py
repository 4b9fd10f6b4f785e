"""What a person does on the page, in the words of the tests."""

import re

from playwright.sync_api import Locator, Page, expect


def message_box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message")


def ask(page: Page, text: str) -> None:
    message_box(page).fill(text)
    message_box(page).press("Enter")


def answer(page: Page, number: int = -1) -> Locator:
    """The answers' bodies; the newest when no number is given."""
    return page.locator(".answer-body").nth(number)


def finished(page: Page) -> None:
    """Wait until the newest answer of the conversation that is drawn is complete: let another be drawn first."""
    expect(page.locator(".exchange").last.get_by_role("button", name="Regenerate")).to_be_visible(timeout=20_000)


def conversation(page: Page, title: str) -> Locator:
    return page.get_by_role("navigation").get_by_title(title, exact=True)


def open_again(page: Page, question: str) -> None:
    """Go to the conversation of one question, and wait until it is what the page shows."""
    conversation(page, question).click()
    expect(page.locator(".bubble")).to_have_text(question)


def start_another(page: Page) -> None:
    """Go to a new conversation, and wait until the page shows that nothing is said in it."""
    page.get_by_role("link", name="New chat").click()
    expect(page.get_by_role("heading", name="What can I do for you?")).to_be_visible()


def shown_text(page: Page) -> str:
    """The whole text of the newest answer, as the page shows it."""
    return "\n\n".join(answer(page).locator(".prose > p, .prose > h4").all_inner_texts())


def words(markdown: str) -> list[str]:
    """The words of a text without its Markdown."""
    return re.sub(r"[#*`>]", "", markdown).split()

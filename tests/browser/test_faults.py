"""What the web chat does when something goes wrong: nothing is lost, nothing doubled, and people are told."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.fake_gateway import FakeGateway
from tests.browser.fake_scripts import HOSTILE, STORY
from tests.browser.steps import answer, ask, conversation, finished, message_box, shown_text

pytestmark = pytest.mark.browser

LONG = "Tell me a long story"


def test_a_stream_that_is_cut_many_times_gives_each_word_once(gateway: FakeGateway, fake_page: Page) -> None:
    gateway.faults.cuts = [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]
    gateway.faults.repeat = 4
    ask(fake_page, LONG)
    finished(fake_page)
    assert gateway.faults.cuts == []
    assert shown_text(fake_page).split() == STORY.split()


def test_refused_reconnects_are_told_and_tried_again(gateway: FakeGateway, fake_page: Page) -> None:
    gateway.faults.cuts = [20]
    gateway.faults.refusals = [("GET /chat/", 503)] * 4
    ask(fake_page, LONG)
    expect(fake_page.get_by_text("Connection lost. Reconnecting…")).to_be_visible()
    finished(fake_page)
    expect(fake_page.get_by_text("Connection lost. Reconnecting…")).to_be_hidden()
    assert shown_text(fake_page).split() == STORY.split()


def test_a_stream_that_falls_silent_is_replaced(gateway: FakeGateway, open_page: OpenPage, fake_link: str) -> None:
    page = open_page(fake_link)
    page.clock.install()
    gateway.faults.mute_after = 12
    ask(page, LONG)
    page.get_by_text("Chapter 1. The harbour").first.wait_for()
    page.clock.fast_forward(29_000)
    expect(page.get_by_role("button", name="Stop answering")).to_be_visible()
    page.clock.fast_forward(2_000)
    page.clock.run_for(2_000)
    finished(page)
    assert shown_text(page).split() == STORY.split()


def test_being_offline_is_told_and_over_when_it_is_over(gateway: FakeGateway, fake_page: Page) -> None:
    fake_page.context.set_offline(offline=True)
    expect(fake_page.get_by_text("You are offline.")).to_be_visible()
    ask(fake_page, "Hello?")
    expect(fake_page.get_by_text("Sending…")).to_be_visible()
    fake_page.context.set_offline(offline=False)
    expect(fake_page.get_by_text("You are offline.")).to_be_hidden()
    finished(fake_page)
    assert [run.content for run in gateway.runs.values()] == ["Hello?"]


def test_a_restarted_run_shows_what_counts_and_not_what_was_voided(gateway: FakeGateway, fake_page: Page) -> None:
    ask(fake_page, "restart")
    expect(answer(fake_page)).to_contain_text("Void words")
    gateway.open_gates()
    finished(fake_page)
    expect(answer(fake_page)).not_to_contain_text("Void words")
    expect(answer(fake_page).locator(".prose").first).to_have_text("Kept words.")
    expect(answer(fake_page).locator(".prose").last).to_have_text("New words.")
    expect(answer(fake_page).locator("details.tool")).to_have_count(1)


def test_lost_frames_are_made_up_for(fake_page: Page) -> None:
    ask(fake_page, "resync")
    finished(fake_page)
    assert shown_text(fake_page) == "The beginning, the middle, the end."


def test_a_failed_run_says_why_and_can_be_tried_again(fake_page: Page) -> None:
    ask(fake_page, "fail")
    alert = fake_page.get_by_role("alert")
    expect(alert).to_contain_text("The model did not answer")
    expect(alert.get_by_text("model_unavailable")).to_be_hidden()
    alert.get_by_text("Details").click()
    expect(alert.get_by_text("model_unavailable")).to_be_visible()
    expect(answer(fake_page)).to_contain_text("I begin, but")
    fake_page.get_by_role("button", name="Try again").click()
    expect(fake_page.locator(".branches [role=status]")).to_have_text("2/2")
    expect(fake_page.locator(".question")).to_have_count(1)


def test_an_accept_whose_answer_is_lost_makes_one_request(gateway: FakeGateway, fake_page: Page) -> None:
    gateway.faults.lost_accepts = 2
    ask(fake_page, "Hello once")
    finished(fake_page)
    assert [run.content for run in gateway.runs.values()] == ["Hello once"]
    expect(fake_page.locator(".bubble")).to_have_text(["Hello once"])


def test_a_refused_message_keeps_its_words_and_can_be_sent_again(gateway: FakeGateway, fake_page: Page) -> None:
    gateway.faults.refusals = [("POST /chat", 422)]
    ask(fake_page, "Precious words")
    alert = fake_page.get_by_role("alert")
    alert.get_by_text("Details").click()
    expect(alert).to_contain_text("4bf92f3577b34da6a3ce929d0e0e4736")
    expect(fake_page.locator(".bubble")).to_have_text("Precious words")
    fake_page.get_by_role("button", name="Send again").click()
    finished(fake_page)
    expect(fake_page.locator(".bubble")).to_have_text(["Precious words"])


def test_a_message_that_is_not_accepted_yet_survives_a_reload(gateway: FakeGateway, fake_page: Page) -> None:
    gateway.faults.lost_accepts = 100
    ask(fake_page, "Not lost")
    expect(fake_page.get_by_text("Sending…")).to_be_visible()
    expect(fake_page.get_by_text("Connection lost.")).to_be_visible()
    fake_page.reload()
    gateway.faults.lost_accepts = 0
    expect(message_box(fake_page)).to_have_value("Not lost")
    message_box(fake_page).press("Enter")
    finished(fake_page)
    assert [run.content for run in gateway.runs.values()] == ["Not lost"]


def test_a_reload_before_the_conversation_is_listed_goes_on_with_it(gateway: FakeGateway, fake_page: Page) -> None:
    gateway.faults.unlisted = True
    ask(fake_page, "gate")
    expect(answer(fake_page)).to_contain_text("Before the gate.")
    fake_page.reload()
    expect(fake_page.locator(".bubble")).to_have_text("gate")
    expect(conversation(fake_page, "gate")).to_be_visible()
    expect(answer(fake_page)).to_contain_text("Before the gate.")
    gateway.faults.unlisted = False
    gateway.open_gates()
    finished(fake_page)
    assert shown_text(fake_page) == "Before the gate. After the gate."
    fake_page.reload()
    finished(fake_page)
    expect(fake_page.locator(".bubble")).to_have_text(["gate"])


def test_two_messages_at_once_in_a_new_chat_share_one_conversation(gateway: FakeGateway, fake_page: Page) -> None:
    ask(fake_page, "first")
    ask(fake_page, "second")
    expect(fake_page.locator(".answer-body")).to_have_count(2)
    finished(fake_page)
    assert [run.content for session in gateway.sessions.values() for run in session.runs] == ["first", "second"]
    assert len(gateway.sessions) == 1


def test_a_message_to_a_deleted_conversation_is_refused_in_plain_words(gateway: FakeGateway, fake_page: Page) -> None:
    ask(fake_page, "Hello")
    finished(fake_page)
    gateway.sessions.clear()
    ask(fake_page, "Still there?")
    expect(fake_page.get_by_role("alert")).to_contain_text("There is no such session")


def test_a_page_that_is_signed_out_goes_on_after_a_new_link(gateway: FakeGateway, fake_page: Page) -> None:
    ask(fake_page, "gate")
    expect(answer(fake_page)).to_contain_text("Before the gate.")
    message_box(fake_page).fill("half a thought")
    gateway.cookies.clear()
    fake_page.get_by_role("button", name="Stop answering").click()
    expect(fake_page.get_by_role("heading", name="Sign in to Flotilla")).to_be_visible()
    other = fake_page.context.new_page()
    other.goto(gateway.link())
    message_box(other).wait_for()
    gateway.open_gates()
    finished(fake_page)
    assert shown_text(fake_page) == "Before the gate. After the gate."
    expect(message_box(fake_page)).to_have_value("half a thought")


def test_a_link_opened_in_the_signed_out_page_itself_signs_in(gateway: FakeGateway, open_page: OpenPage) -> None:
    page = open_page(gateway.url, ready=False)
    expect(page.get_by_role("heading", name="Sign in to Flotilla")).to_be_visible()
    page.goto(gateway.link())
    expect(message_box(page)).to_be_visible()
    assert "code" not in page.url


def test_a_message_sent_while_the_page_still_loads_stays(gateway: FakeGateway, open_page: OpenPage) -> None:
    gateway.faults.listing_waits = True
    page = open_page(gateway.link())
    ask(page, "Early bird")
    finished(page)
    gateway.open_gates()
    expect(conversation(page, "Early bird")).to_be_visible()
    expect(page.locator(".bubble")).to_have_text(["Early bird"])
    expect(message_box(page)).to_have_value("")


def test_a_link_opened_in_a_conversation_leads_back_to_it(gateway: FakeGateway, fake_page: Page) -> None:
    ask(fake_page, "Hello")
    finished(fake_page)
    gateway.faults.refusals = [("POST /chat", 401)]  # and no other call, which would sign the page out before
    ask(fake_page, "Refused")
    expect(fake_page.get_by_role("heading", name="Sign in to Flotilla")).to_be_visible()
    gateway.cookies.clear()
    fake_page.goto(gateway.link())
    expect(fake_page.get_by_role("button", name="Send again")).to_be_visible()
    ask(fake_page, "Refused")
    finished(fake_page)
    expect(fake_page.locator(".bubble")).to_have_text(["Hello", "Refused"])
    assert [run.content for run in gateway.runs.values()] == ["Hello", "Refused"]


def test_a_link_of_another_person_asks_before_it_changes_who_is_signed_in(
    gateway: FakeGateway, fake_page: Page
) -> None:
    question = fake_page.get_by_role("heading", name="Sign in as somebody else?")
    gateway.faults.refusals = [("POST /auth/link", 409)]
    fake_page.goto(gateway.link())
    expect(question).to_be_visible()
    fake_page.get_by_role("button", name="Stay signed in").click()
    expect(message_box(fake_page)).to_be_visible()
    assert len(gateway.codes) == 1, "the link was not used"
    gateway.faults.refusals = [("POST /auth/link", 409)]
    fake_page.goto(gateway.link())
    expect(question).to_be_visible()
    fake_page.get_by_role("button", name="Change", exact=True).click()
    expect(message_box(fake_page)).to_be_visible()
    assert len(gateway.codes) == 1, "the second link was used"
    assert "code" not in fake_page.url


def test_a_gateway_that_is_not_ready_is_told_and_asked_again(gateway: FakeGateway, open_page: OpenPage) -> None:
    gateway.faults.refusals = [("GET /auth/me", 503)]
    page = open_page(gateway.link(), ready=False)
    expect(page.get_by_role("heading", name="Flotilla does not answer")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(message_box(page)).to_be_visible()


def test_a_stop_that_is_not_taken_can_be_pressed_again(gateway: FakeGateway, fake_page: Page) -> None:
    ask(fake_page, "gate")
    expect(answer(fake_page)).to_contain_text("Before the gate.")
    gateway.faults.refusals = [("DELETE /api/v1/requests/", 503)]
    fake_page.get_by_role("button", name="Stop answering").click()
    expect(fake_page.get_by_role("alert")).to_be_visible()
    fake_page.get_by_role("button", name="Dismiss").click()
    expect(fake_page.get_by_role("alert")).to_be_hidden()
    fake_page.get_by_role("button", name="Stop answering").click()
    expect(answer(fake_page).get_by_text("Stopped", exact=True)).to_be_visible()


def test_hostile_markdown_loads_runs_and_navigates_nothing(fake_page: Page) -> None:
    ask(fake_page, "hostile")
    finished(fake_page)
    body = answer(fake_page)
    assert fake_page.evaluate("() => window.pwned") is None
    expect(body.locator("img, script, iframe, svg:not(.icon), [style], [onclick]")).to_have_count(0)
    expect(body).to_contain_text('<img src="https://evil.example/a.png"')
    links = body.get_by_role("link").evaluate_all("all => all.map(a => [a.innerText, a.href, a.target, a.rel])")
    safe = ["_blank", "noopener noreferrer nofollow"]
    assert links == [
        ["Image: pixel (evil.example)", "https://evil.example/pixel.gif?secret=1", *safe],
        ["https://bank.example (evil.example)", "https://evil.example/login", *safe],
        ["https://safe.example/page", "https://safe.example/page", *safe],
        [
            "write to us (crew@safe.example, bcc spy@evil.example)",
            "mailto:crew@safe.example?bcc=spy%40evil.example",
            *safe,
        ],
    ]
    expect(body.get_by_role("listitem")).to_have_text("a <b> & c ©")
    assert "javascript:window.pwned" in HOSTILE


def test_earlier_messages_come_on_request_and_nothing_jumps(gateway: FakeGateway, open_page: OpenPage) -> None:
    turns = [(f"question {n}", f"answer {n}\n\n" + "words " * 80) for n in range(1, 8)]
    session = gateway.remember("Long ago", *turns, days_ago=3)
    gateway.page_size = 5
    page = open_page(gateway.link())
    conversation(page, "Long ago").click()
    expect(page.locator(".bubble").first).to_have_text("question 6")
    expect(page.locator(".bubble").last).to_be_in_viewport()
    page.locator(".scroll").evaluate("box => box.scrollTo(0, 40)")
    before = page.get_by_text("question 6").bounding_box()
    page.get_by_role("button", name="Earlier messages").dispatch_event("click")  # a click would scroll to the button
    expect(page.locator(".bubble").first).to_have_text("question 3")
    after = page.get_by_text("question 6").bounding_box()
    assert before is not None
    assert after is not None
    assert abs(after["y"] - before["y"]) < 2
    page.get_by_role("button", name="Earlier messages").click()
    expect(page.locator(".bubble")).to_have_text([question for question, _ in turns])
    expect(page.locator(".answer-body")).to_have_count(7)
    expect(page.get_by_role("button", name="Earlier messages")).to_have_count(0)
    assert session in page.url


def test_a_search_finds_conversations_of_pages_that_were_not_loaded(gateway: FakeGateway, open_page: OpenPage) -> None:
    for n in range(12):
        gateway.remember(f"Voyage {n}", ("q", "a"), days_ago=n)
    gateway.page_size = 5
    page = open_page(gateway.link())
    expect(conversation(page, "Voyage 4")).to_be_visible()
    expect(conversation(page, "Voyage 11")).to_have_count(0)
    page.get_by_role("searchbox").fill("voyage 11")
    expect(conversation(page, "Voyage 11")).to_be_visible()
    expect(page.get_by_text("1 conversations found")).to_be_attached()


def test_a_conversation_deleted_in_another_tab_is_left(gateway: FakeGateway, fake_page: Page) -> None:
    ask(fake_page, "Hello")
    finished(fake_page)
    other = fake_page.context.new_page()
    other.goto(fake_page.url)
    finished(other)
    other.get_by_role("button", name="Delete this conversation").click()
    other.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(fake_page.get_by_role("heading", name="What can I do for you?")).to_be_visible()
    assert gateway.sessions == {}

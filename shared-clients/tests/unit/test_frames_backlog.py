from uuid import UUID

from pydantic_core import from_json

from run_frames.backlog import MAX_GATHERED, Backlog
from shared_models.frames import Cursor, Frame
from tests.simulators.viewer import seen

RUN, SESSION, ONE, TWO = (UUID(int=number) for number in range(1, 5))


def backlog(epoch: int = 1) -> Backlog:
    return Backlog(RUN, SESSION, epoch)


def batch(of: Backlog) -> list[Frame]:
    return [entry.frame for entry in of.take() if entry.frame]


def sent(of: Backlog) -> list[Frame]:
    """Bring all of it into a log that works."""
    frames = list[Frame]()
    while not of.empty:
        frames += batch(of)
        while of.batch:
            of.strike_off()
    return frames


def value(frame: Frame) -> dict[str, object]:
    found = from_json(frame.data)["value"]
    assert isinstance(found, dict)
    return found


def test_text_that_waits_is_one_frame_and_keeps_its_first_cursor() -> None:
    waiting = backlog()

    cursors = {waiting.text(ONE, delta) for delta in ("one ", "two ", "three")}

    assert cursors == {Cursor(1, 1)} == {waiting.last}
    assert [from_json(frame.data)["delta"] for frame in batch(waiting)] == ["one two three"]


def test_text_is_not_merged_into_another_message_nor_across_an_event() -> None:
    waiting = backlog()
    waiting.text(ONE, "a")
    waiting.text(TWO, "b")
    waiting.event("TEXT_MESSAGE_END", {"messageId": ONE})
    waiting.text(TWO, "c")

    assert [frame.cursor.sequence for frame in batch(waiting)] == [1, 2, 3, 4]


def test_a_batch_stays_the_same_until_it_is_through() -> None:
    waiting = backlog()
    waiting.text(ONE, "a")
    first = batch(waiting)

    waiting.text(ONE, "b")

    assert batch(waiting) == first
    waiting.strike_off()
    assert [from_json(frame.data)["delta"] for frame in batch(waiting)] == ["b"]


def test_too_much_is_dropped_and_one_resync_tells_its_text() -> None:
    waiting = backlog()
    waiting.event("RUN_STARTED", waiting.started)
    waiting.text(ONE, "before ")
    waiting.take()
    waiting.text(ONE, "lost ")
    waiting.text(ONE, "x" * MAX_GATHERED)
    waiting.text(ONE, " after")

    resync, after = batch(waiting)

    assert value(resync) == {
        "messageId": str(ONE),
        "content": f"before lost {'x' * MAX_GATHERED}",
    }
    assert from_json(after.data)["delta"] == " after"


def test_what_waits_is_bounded_however_long_nothing_is_sent() -> None:
    waiting = backlog()

    for _ in range(20):
        waiting.event("TOOL_CALL_RESULT", {"toolCallId": "c", "messageId": ONE, "content": "x" * 60_000})

    assert sum(len(frame.data) for frame in batch(waiting)) <= MAX_GATHERED


def test_a_resync_tells_all_messages_and_not_what_was_voided() -> None:
    waiting = backlog(epoch=2)
    waiting.text(TWO, "voided")
    before = [{"id": "a", "role": "assistant", "content": "an earlier turn"}, {"id": "u", "role": "user"}]
    kept = [{"id": str(ONE), "role": "assistant", "content": "kept"}, {"id": "c", "role": "tool", "content": "found"}]
    waiting.reset(Cursor(1, 9), [*before, *kept])
    waiting.text(RUN, "again")
    waiting.resync()

    assert value(sent(waiting)[-1]) == {
        "earlier": [{"messageId": str(ONE), "content": "kept"}],
        "messageId": str(RUN),
        "content": "again",
    }


def test_a_reset_that_is_dropped_still_counts() -> None:
    waiting = backlog()
    waiting.text(ONE, "voided")
    sent(waiting)
    waiting.reset(None, [])
    waiting.text(TWO, "x" * MAX_GATHERED + "!")

    assert value(sent(waiting)[0]) == {"messageId": str(TWO), "content": "x" * MAX_GATHERED + "!"}


def test_a_resync_in_the_middle_waits_until_what_went_before_it_is_through() -> None:
    waiting = backlog()
    waiting.text(ONE, "before")
    waiting.resync()
    waiting.text(ONE, " after")

    frames = sent(waiting)

    assert [frame.type for frame in frames] == ["TEXT_MESSAGE_CONTENT", "CUSTOM", "TEXT_MESSAGE_CONTENT"]
    assert value(frames[1])["content"] == "before"
    assert seen(frames, strict=False).text == "before after"


def test_a_log_begun_anew_tells_what_was_in_it_at_the_place_of_its_last_frame() -> None:
    waiting = backlog()
    waiting.event("RUN_STARTED", waiting.started)
    waiting.event("TEXT_MESSAGE_START", {"messageId": ONE})
    waiting.text(ONE, "there")
    sent(waiting)
    waiting.text(ONE, " and not there")
    waiting.take()

    waiting.reopen()

    started, resync, text = batch(waiting)
    assert (started.type, str(started.cursor)) == ("RUN_STARTED", "0-1")
    assert (value(resync)["content"], str(resync.cursor)) == ("there", "1-3")
    assert str(text.cursor) == "1-4"


def test_a_log_that_never_was_begins_without_a_resync() -> None:
    waiting = backlog(epoch=2)
    waiting.reset(None, [])
    waiting.take()

    waiting.reopen()

    assert [frame.type for frame in batch(waiting)] == ["RUN_STARTED", "CUSTOM", "MESSAGES_SNAPSHOT"]
    assert value(batch(waiting)[1]) == {}


def test_after_its_end_it_takes_numbers_and_keeps_nothing() -> None:
    waiting = backlog()
    waiting.close()

    waiting.text(ONE, "x" * (MAX_GATHERED + 1))
    waiting.event("TEXT_MESSAGE_END", {"messageId": ONE})

    assert waiting.empty
    assert waiting.through.is_set()
    assert waiting.last == Cursor(1, 2)

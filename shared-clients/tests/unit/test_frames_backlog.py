from uuid import UUID

from pydantic_core import from_json

from run_frames.backlog import MAX_QUEUED, Backlog
from shared_models.frames import Cursor, Frame
from tests.simulators.viewer import seen

RUN, SESSION, ONE, TWO = (UUID(int=number) for number in range(1, 5))


def backlog(epoch: int = 1) -> Backlog:
    return Backlog(RUN, SESSION, epoch)


def batch(queue: Backlog) -> list[Frame]:
    return [queued.frame for queued in queue.next_batch() if queued.frame]


def sent(queue: Backlog) -> list[Frame]:
    """Bring all of it into a log that works."""
    frames = list[Frame]()
    while not queue.empty:
        frames += batch(queue)
        while queue.batch:
            queue.mark_appended()
    return frames


def value(frame: Frame) -> dict[str, object]:
    content = from_json(frame.data)["value"]
    assert isinstance(content, dict)
    return content


def test_text_that_waits_is_one_frame_and_keeps_its_first_cursor() -> None:
    queue = backlog()

    cursors = {queue.add_text(ONE, delta) for delta in ("one ", "two ", "three")}

    assert cursors == {Cursor(1, 1)} == {queue.last}
    assert [from_json(frame.data)["delta"] for frame in batch(queue)] == ["one two three"]


def test_text_is_not_merged_into_another_message_nor_across_an_event() -> None:
    queue = backlog()
    queue.add_text(ONE, "a")
    queue.add_text(TWO, "b")
    queue.add_event("TEXT_MESSAGE_END", {"messageId": ONE})
    queue.add_text(TWO, "c")

    assert [frame.cursor.sequence for frame in batch(queue)] == [1, 2, 3, 4]


def test_a_batch_stays_the_same_until_it_is_in_the_log() -> None:
    queue = backlog()
    queue.add_text(ONE, "a")
    first = batch(queue)

    queue.add_text(ONE, "b")

    assert batch(queue) == first
    queue.mark_appended()
    assert [from_json(frame.data)["delta"] for frame in batch(queue)] == ["b"]


def test_frames_beyond_the_limit_are_dropped_and_one_resync_repeats_their_text() -> None:
    queue = backlog()
    queue.add_event("RUN_STARTED", queue.run_fields)
    queue.add_text(ONE, "before ")
    queue.next_batch()
    queue.add_text(ONE, "lost ")
    queue.add_text(ONE, "x" * MAX_QUEUED)
    queue.add_text(ONE, " after")

    resync, after = batch(queue)

    assert value(resync) == {
        "messageId": str(ONE),
        "content": f"before lost {'x' * MAX_QUEUED}",
    }
    assert from_json(after.data)["delta"] == " after"


def test_queued_frames_are_bounded_when_none_is_sent() -> None:
    queue = backlog()

    for _ in range(20):
        queue.add_event("TOOL_CALL_RESULT", {"toolCallId": "c", "messageId": ONE, "content": "x" * 60_000})

    assert sum(len(frame.data) for frame in batch(queue)) <= MAX_QUEUED


def test_a_resync_repeats_all_messages_except_voided_ones() -> None:
    queue = backlog(epoch=2)
    queue.add_text(TWO, "voided")
    before = [{"id": "a", "role": "assistant", "content": "an earlier turn"}, {"id": "u", "role": "user"}]
    kept = [{"id": str(ONE), "role": "assistant", "content": "kept"}, {"id": "c", "role": "tool", "content": "found"}]
    queue.add_reset(Cursor(1, 9), [*before, *kept])
    queue.add_text(RUN, "again")
    queue.add_resync()

    assert value(sent(queue)[-1]) == {
        "earlier": [{"messageId": str(ONE), "content": "kept"}],
        "messageId": str(RUN),
        "content": "again",
    }


def test_a_reset_that_is_dropped_still_counts() -> None:
    queue = backlog()
    queue.add_text(ONE, "voided")
    sent(queue)
    queue.add_reset(None, [])
    queue.add_text(TWO, "x" * MAX_QUEUED + "!")

    assert value(sent(queue)[0]) == {"messageId": str(TWO), "content": "x" * MAX_QUEUED + "!"}


def test_a_resync_waits_until_the_frames_before_it_are_in_the_log() -> None:
    queue = backlog()
    queue.add_text(ONE, "before")
    queue.add_resync()
    queue.add_text(ONE, " after")

    frames = sent(queue)

    assert [frame.type for frame in frames] == ["TEXT_MESSAGE_CONTENT", "CUSTOM", "TEXT_MESSAGE_CONTENT"]
    assert value(frames[1])["content"] == "before"
    assert seen(frames, strict=False).text == "before after"


def test_a_new_log_repeats_the_text_of_the_old_one_at_the_cursor_of_its_last_frame() -> None:
    queue = backlog()
    queue.add_event("RUN_STARTED", queue.run_fields)
    queue.add_event("TEXT_MESSAGE_START", {"messageId": ONE})
    queue.add_text(ONE, "there")
    sent(queue)
    queue.add_text(ONE, " and not there")
    queue.next_batch()

    queue.begin_new_log()

    started, resync, text = batch(queue)
    assert (started.type, str(started.cursor)) == ("RUN_STARTED", "0-1")
    assert (value(resync)["content"], str(resync.cursor)) == ("there", "1-3")
    assert str(text.cursor) == "1-4"


def test_a_log_that_never_was_begins_without_a_resync() -> None:
    queue = backlog(epoch=2)
    queue.add_reset(None, [])
    queue.next_batch()

    queue.begin_new_log()

    assert [frame.type for frame in batch(queue)] == ["RUN_STARTED", "CUSTOM", "MESSAGES_SNAPSHOT"]
    assert value(batch(queue)[1]) == {}


def test_after_its_end_it_takes_numbers_and_keeps_nothing() -> None:
    queue = backlog()
    queue.close()

    queue.add_text(ONE, "x" * (MAX_QUEUED + 1))
    queue.add_event("TEXT_MESSAGE_END", {"messageId": ONE})

    assert queue.empty
    assert queue.flushed.is_set()
    assert queue.last == Cursor(1, 2)

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from shared_models.frames import (
    LAST_SEQUENCE,
    START,
    Cursor,
    Frame,
    OpenParts,
    TextEncoder,
    TextMessage,
    encode,
    ending,
    reset,
    resync,
    sse,
    terminal_frame,
    terminal_view,
)
from shared_models.requests import STATES, TERMINAL, Failure, FailureReason, RequestView, Response, Status
from tests.simulators.viewer import AGUI, seen

RUN = UUID("0199c0de-0000-7000-8000-000000000001")
SESSION = UUID("0199c0de-0000-7000-8000-000000000002")
MESSAGE = UUID("0199c0de-0000-7000-8000-000000000003")


def view(status: Status = Status.COMPLETED, error: Failure | None = None) -> RequestView:
    answer = Response(content="Hello") if status is Status.COMPLETED else None
    at = datetime(2026, 11, 1, tzinfo=UTC)
    return RequestView(
        request_id=RUN, session_id=SESSION, turn=3, status=status, response=answer, error=error, created_at=at
    )


EVERY_TYPE = [
    ("RUN_STARTED", {"threadId": SESSION, "runId": RUN}),
    ("TEXT_MESSAGE_START", {"messageId": MESSAGE, "role": "assistant"}),
    ("TEXT_MESSAGE_CONTENT", {"messageId": MESSAGE, "delta": "Hi"}),
    ("TEXT_MESSAGE_END", {"messageId": MESSAGE}),
    ("TOOL_CALL_START", {"toolCallId": "c1", "toolCallName": "look_up", "parentMessageId": None}),
    ("TOOL_CALL_ARGS", {"toolCallId": "c1", "delta": '{"id":'}),
    ("TOOL_CALL_END", {"toolCallId": "c1"}),
    ("TOOL_CALL_RESULT", {"toolCallId": "c1", "messageId": MESSAGE, "content": "found"}),
    ("REASONING_START", {"messageId": MESSAGE}),
    ("REASONING_MESSAGE_START", {"messageId": MESSAGE, "role": "reasoning"}),
    ("REASONING_MESSAGE_CONTENT", {"messageId": MESSAGE, "delta": "Hm"}),
    ("REASONING_MESSAGE_END", {"messageId": MESSAGE}),
    ("REASONING_END", {"messageId": MESSAGE}),
    ("STEP_STARTED", {"stepName": "triage"}),
    ("STEP_FINISHED", {"stepName": "triage"}),
    ("MESSAGES_SNAPSHOT", {"messages": [{"id": "m1", "role": "user", "content": "Hi"}]}),
    ("CUSTOM", reset(None)),
    ("CUSTOM", reset(Cursor(1, 7))),
    ("CUSTOM", resync([])),
    ("CUSTOM", resync([TextMessage("m1", "Let me see."), TextMessage("m2", "It is")])),
    *(
        (event.type, event.fields)
        for event in (
            terminal_frame(view()),
            terminal_frame(view(Status.FAILED, Failure(reason=FailureReason.MODEL_CUT, message="It broke off."))),
            terminal_frame(view(Status.EXPIRED)),
        )
    ),
]


@pytest.mark.parametrize(("type_", "fields"), EVERY_TYPE)
def test_every_frame_is_an_agui_event_with_its_cursor_in_metadata(type_: str, fields: dict[str, object]) -> None:
    frame = encode(type_, RUN, Cursor(2, 5), fields)

    event = AGUI.validate_json(frame.data)

    assert event.type.value == frame.type == type_
    assert event.metadata == {"execution_id": str(RUN), "epoch": 2, "sequence": 5}
    assert not event.model_extra, "clients strip unknown fields with a warning each"
    assert None not in from_json(frame.data).values()


@given(st.text(), st.integers(1, 2**31))
def test_text_is_encoded_as_any_other_event_is(delta: str, sequence: int) -> None:
    fast = TextEncoder(RUN, MESSAGE, 4).encode(sequence, delta)

    slow = encode("TEXT_MESSAGE_CONTENT", RUN, Cursor(4, sequence), {"messageId": MESSAGE, "delta": delta})
    assert from_json(fast.data) == from_json(slow.data)
    assert fast.cursor == slow.cursor
    assert b"\n" not in fast.data


def test_half_of_a_surrogate_pair_becomes_a_replacement_character() -> None:
    frame = TextEncoder(RUN, MESSAGE, 1).encode(1, "a\ud83d")
    nested = encode("TOOL_CALL_ARGS", RUN, Cursor(1, 2), {"toolCallId": MESSAGE, "delta": "\ud83d\ude00 \ude00"})

    assert from_json(frame.data)["delta"] == "a\ufffd"
    assert from_json(nested.data)["delta"] == "\U0001f600 \ufffd"
    assert from_json(nested.data)["toolCallId"] == str(MESSAGE)


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "01-2", "1-2-3", "a-b", "1-2\n", "\u0661-1", "1" * 19 + "-1"])
def test_malformed_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a cursor"):
        Cursor.parse(text)


@given(st.integers(0, 10**17), st.integers(0, 10**17))
def test_a_cursor_survives_its_text(epoch: int, sequence: int) -> None:
    assert Cursor.parse(str(Cursor(epoch, sequence))) == Cursor(epoch, sequence)


def test_only_the_cursor_of_a_terminal_frame_has_ended() -> None:
    assert Cursor(2, 0).is_terminal
    assert not START.is_terminal
    assert not Cursor(1, 1).is_terminal


def test_a_frame_is_one_server_sent_event_and_a_heartbeat_is_a_comment() -> None:
    frame = encode("CUSTOM", RUN, Cursor(1, 9), {"name": "note", "value": "two\nlines"})

    assert sse(frame) == b"id: 1-9\ndata: " + frame.data + b"\n\n"
    assert sse(frame).count(b"\n") == 3
    assert sse(None) == b":\n\n"


def test_open_parts_are_closed_from_the_inside_out() -> None:
    frames = [
        encode("REASONING_START", RUN, Cursor(1, 1), {"messageId": "r"}),
        encode("REASONING_MESSAGE_START", RUN, Cursor(1, 2), {"messageId": "r"}),
        encode("TOOL_CALL_START", RUN, Cursor(1, 3), {"toolCallId": "a", "toolCallName": "x"}),
        encode("TOOL_CALL_START", RUN, Cursor(1, 4), {"toolCallId": "b", "toolCallName": "x"}),
        encode("TOOL_CALL_END", RUN, Cursor(1, 5), {"toolCallId": "a"}),
    ]

    closing = OpenParts(frames).closing()

    assert closing == [
        ("TOOL_CALL_END", {"toolCallId": "b"}),
        ("REASONING_MESSAGE_END", {"messageId": "r"}),
        ("REASONING_END", {"messageId": "r"}),
    ]


def test_an_answer_ends_with_the_whole_view() -> None:
    event = terminal_frame(view())

    assert event.type == "RUN_FINISHED"
    assert (event.fields["threadId"], event.fields["runId"]) == (str(SESSION), str(RUN))
    assert terminal_view(encode(event.type, RUN, Cursor(2, 0), event.fields)) == view()


def test_a_failure_ends_with_its_reason_for_programs_and_its_message_for_people() -> None:
    failed = view(Status.FAILED, Failure(reason=FailureReason.DEADLINE, message="Too late."))

    event = terminal_frame(failed)

    assert (event.type, event.fields["code"], event.fields["message"]) == ("RUN_ERROR", "deadline", "Too late.")
    assert terminal_view(encode(event.type, RUN, Cursor(2, 0), event.fields)) == failed


@pytest.mark.parametrize("status", sorted(TERMINAL - {Status.COMPLETED}))
def test_an_end_without_a_reason_has_the_notice_of_its_status(status: Status) -> None:
    assert terminal_frame(view(status)).fields["message"] == STATES[status].notice
    assert terminal_frame(view(status)).fields["code"] == status.value


@pytest.mark.parametrize("status", sorted(set(Status) - TERMINAL))
def test_pending_request_has_no_terminal_frame(status: Status) -> None:
    with pytest.raises(ValueError, match=f"{RUN} is {status}"):
        terminal_frame(view(status))


def end(seen_: Cursor, still_open: OpenParts | None = None) -> list[Frame]:
    return ending(RUN, seen_, terminal_frame(view()), epoch=seen_.epoch, still_open=still_open or OpenParts())


def test_reader_at_the_start_gets_run_started_the_answer_and_the_end() -> None:
    viewer = seen(end(START))

    assert viewer.text == "Hello"
    assert viewer.cursor == Cursor(1, 0)
    assert viewer.outcome is not None


def test_open_parts_are_closed_before_the_resync() -> None:
    begun = [
        encode("RUN_STARTED", RUN, Cursor(1, 1), {"threadId": SESSION, "runId": RUN}),
        encode("TEXT_MESSAGE_START", RUN, Cursor(1, 2), {"messageId": MESSAGE}),
        encode("TEXT_MESSAGE_CONTENT", RUN, Cursor(1, 3), {"messageId": MESSAGE, "delta": "Hel"}),
    ]

    viewer = seen([*begun, *end(Cursor(1, 3), OpenParts(begun))])

    assert viewer.text == "Hello"
    assert viewer.cursor == Cursor(2, 0)


def test_reader_that_has_the_resync_gets_only_the_end() -> None:
    assert [frame.type for frame in end(Cursor(1, LAST_SEQUENCE))] == ["RUN_FINISHED"]


def test_a_run_without_an_answer_just_ends() -> None:
    frames = ending(RUN, Cursor(1, 4), terminal_frame(view(Status.CANCELLED)), epoch=1, still_open=OpenParts())

    assert [(frame.cursor, frame.type) for frame in frames] == [(Cursor(2, 0), "RUN_ERROR")]


@pytest.mark.parametrize("seen_", [START, Cursor(1, 4), Cursor(1, LAST_SEQUENCE)])
def test_the_resync_is_after_every_frame_that_a_reader_can_have_seen(seen_: Cursor) -> None:
    """A log that was lost, or restored from an older copy, has fewer frames than its readers have seen."""
    frames = ending(RUN, seen_, terminal_frame(view()), epoch=3, still_open=OpenParts())
    *_, resync, last = frames
    assert (resync.type, resync.cursor) == ("CUSTOM", Cursor(3, LAST_SEQUENCE))
    assert last.cursor == Cursor(4, 0)

"""Frames: the AG-UI 1.0 events of a run, as people see them while it is in progress.

agent-service writes frames, the gateway relays them, clients read them. A frame is JSON bytes, made once and never
parsed on the way. Its cursor is `<epoch>-<sequence>`, which is also the entry id in Redis, the SSE id and the fence.
Only text deltas are frequent, so only they are built from a ready-made prefix.

Flotilla adds three CUSTOM events.

- `reset`, value {keep?}: all frames after the frame `keep` are void; without `keep`, all frames are. A
  MESSAGES_SNAPSHOT with the remaining messages follows, and later messages have new ids.
- `resync`, value {content, messageId?, earlier?: [{messageId, content}]}: frames were lost, and the run's text messages
  are exactly `earlier` and then this one. An empty `content` alone means that there are none.
- `retrying`, value {reason}: a call of a model failed for that `FailureReason`, and it or another model is asked again.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from pydantic_core import PydanticSerializationError, from_json, to_json

from shared_models.requests import STATES, RequestView, Status

_CURSOR = re.compile(r"(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})")

TERMINAL_TYPES = frozenset({"RUN_FINISHED", "RUN_ERROR"})

type Fields = Mapping[str, object]
"""AG-UI's camelCase fields of one event, without its type and metadata."""


@dataclass(frozen=True, order=True, slots=True)
class Cursor:
    """A position in a run's stream, just after the frame with this id."""

    epoch: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<epoch>-<sequence>`.

        Raises:
            ValueError: for anything else.
        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            msg = f"expected a cursor of the form <epoch>-<sequence>, such as 1-7, and got {text[:40]!r}"
            raise ValueError(msg)
        return cls(int(match[1]), int(match[2]))

    @property
    def ended(self) -> bool:
        """Whether it is the cursor of a terminal frame, the last one; all other sequences begin at 1."""
        return self.sequence == 0 and self.epoch > 0

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"


START = Cursor(0, 0)
REOPENED = Cursor(0, 1)
"""The cursor of the first frame in a log that is made again after its loss; only a reader at START sees that frame."""
LAST_SEQUENCE = 999_999_999_999_999
"""A sequence after all frames of an epoch: no writer reaches it, and JavaScript represents it exactly."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One entry of a run's stream.

    Attributes:
        cursor: the frame's id.
        type: AG-UI's event type, kept beside the bytes so that no reader has to parse them.
        data: the AG-UI event as JSON, with `metadata` of execution id, epoch and sequence.
    """

    cursor: Cursor
    type: str
    data: bytes

    @property
    def terminal(self) -> bool:
        return self.type in TERMINAL_TYPES


def encode(type_: str, execution_id: UUID, cursor: Cursor, fields: Fields) -> Frame:
    """Encode one AG-UI event.

    Args:
        type_: AG-UI's type, such as TEXT_MESSAGE_START.
        execution_id: the run.
        cursor: the frame's cursor, whose epoch and sequence go into `metadata`.
        fields: AG-UI's camelCase fields of that type; None leaves an optional field out, because null breaks clients.
    """
    present = {name: value for name, value in fields.items() if value is not None}
    metadata = {"execution_id": str(execution_id), "epoch": cursor.epoch, "sequence": cursor.sequence}
    return Frame(cursor, type_, _json({"type": type_, **present, "metadata": metadata}))


class TextEncoder:
    """Encodes the deltas of one message, and makes their constant parts once."""

    def __init__(self, execution_id: UUID, message_id: UUID, epoch: int) -> None:
        self._epoch = epoch
        self._head = b'{"type":"TEXT_MESSAGE_CONTENT","messageId":"%s","delta":' % str(message_id).encode()
        self._tail = b',"metadata":{"execution_id":"%s","epoch":%d,"sequence":' % (str(execution_id).encode(), epoch)

    def encode(self, sequence: int, delta: str) -> Frame:
        data = b"%s%s%s%d}}" % (self._head, _json(delta), self._tail, sequence)
        return Frame(Cursor(self._epoch, sequence), "TEXT_MESSAGE_CONTENT", data)


def _json(value: object) -> bytes:
    try:
        return to_json(value)
    except PydanticSerializationError:  # half of a surrogate pair, where a provider cut a text; json accepts it
        text = json.dumps(value, ensure_ascii=False, default=str)
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def sse(frame: Frame | None) -> bytes:
    """Return a frame as a server-sent event with the cursor as id; None becomes a heartbeat, which clients skip."""
    if frame is None:
        return b":\n\n"
    return b"id: %d-%d\ndata: %s\n\n" % (frame.cursor.epoch, frame.cursor.sequence, frame.data)


_PAIRS = {
    "TEXT_MESSAGE_START": ("TEXT_MESSAGE_END", "messageId"),
    "TOOL_CALL_START": ("TOOL_CALL_END", "toolCallId"),
    "REASONING_START": ("REASONING_END", "messageId"),
    "REASONING_MESSAGE_START": ("REASONING_MESSAGE_END", "messageId"),
    "STEP_STARTED": ("STEP_FINISHED", "stepName"),
}
"""For each opening event, its closing event and the field that identifies the part; AG-UI wants all parts closed."""
_CLOSING = frozenset(closing for closing, _ in _PAIRS.values())


class OpenParts:
    """The parts of a stream that have started and not ended."""

    def __init__(self, frames: Iterable[Frame] = ()) -> None:
        self._open: dict[tuple[str, str, str], None] = {}
        for frame in frames:
            if frame.type in _PAIRS or frame.type in _CLOSING:
                self.saw(frame.type, from_json(frame.data))

    def saw(self, type_: str, fields: Fields) -> None:
        """Note one event; call this in the order of the stream."""
        if pair := _PAIRS.get(type_):
            closing, name = pair
            self._open[closing, name, str(fields[name])] = None
        elif type_ in _CLOSING:
            for part in [part for part in self._open if part[0] == type_ and part[2] == str(fields[part[1]])]:
                del self._open[part]

    def closing(self) -> list[tuple[str, dict[str, object]]]:
        """Return the events that close all open parts, the innermost first."""
        return [(closing, {name: value}) for closing, name, value in reversed(self._open)]


def reset(keep: Cursor | None) -> dict[str, object]:
    """Return the fields of CUSTOM `reset`."""
    return {"name": "reset", "value": {} if keep is None else {"keep": str(keep)}}


def resync(messages: Sequence[tuple[str, str]]) -> dict[str, object]:
    """Return the fields of CUSTOM `resync` for these messages, each an id and its text until now."""
    parts: list[dict[str, object]] = [{"messageId": message_id, "content": content} for message_id, content in messages]
    value: dict[str, object] = dict(parts[-1]) if parts else {"content": ""}
    if parts[:-1]:
        value["earlier"] = parts[:-1]
    return {"name": "resync", "value": value}


def terminal_frame(view: RequestView) -> tuple[str, dict[str, object]]:
    """Return type and fields of the one frame that ends a run.

    An answer is RUN_FINISHED: `threadId` is the session, `runId` the request, and `result` the view that polling shows.
    Every other end is RUN_ERROR: `message` is for people, `code` is the failure's reason or, without one, the status.
    Its `rawEvent`, which AG-UI clients pass on unchanged, holds the same view.

    Raises:
        ValueError: the request has not ended.
    """
    state = STATES[view.status]
    if not state.terminal:
        msg = f"request {view.request_id} is {view.status}, and a terminal frame was expected to be for one that ended"
        raise ValueError(msg)
    whole = view.model_dump(mode="json", exclude_none=True)
    if view.status is Status.COMPLETED:
        return "RUN_FINISHED", {"threadId": str(view.session_id), "runId": str(view.request_id), "result": whole}
    if view.error is None:
        return "RUN_ERROR", {"message": state.notice, "code": view.status.value, "rawEvent": whole}
    return "RUN_ERROR", {"message": view.error.message, "code": view.error.reason.value, "rawEvent": whole}


def terminal_view(frame: Frame) -> RequestView:
    """Return the view in a terminal frame, for a caller that waits for the result and not for the stream."""
    fields = from_json(frame.data)
    return RequestView.model_validate(fields["result" if frame.type == "RUN_FINISHED" else "rawEvent"])


def ending(
    execution_id: UUID, seen: Cursor, outcome: tuple[str, Fields], *, epoch: int, still_open: OpenParts
) -> list[Frame]:
    """Return the frames that end a stream after `seen`, when the run has ended and its log has no end.

    A run with an answer gets RUN_STARTED where no frame was seen, else the closing events of open parts; then `resync`
    with the whole answer. The last frame of every run is the terminal one, with its own cursor `<epoch+1>-0`.

    Args:
        execution_id: the run.
        seen: the cursor of the last frame in the log, or of the reader's last frame.
        outcome: the return value of `terminal_frame`.
        epoch: the run's last epoch, at least that of `seen`.
        still_open: the parts that are open after `seen`.
    """
    type_, fields = outcome
    parts: list[tuple[Cursor, str, Fields]] = [(Cursor(epoch + 1, 0), type_, fields)]
    if type_ == "RUN_FINISHED" and seen < Cursor(epoch, LAST_SEQUENCE):
        whole = {"name": "resync", "value": {"content": _answer(fields)}}
        parts.insert(
            0, (Cursor(epoch, LAST_SEQUENCE), "CUSTOM", whole)
        )  # after every frame that a reader can have seen
        closing = still_open.closing()
        if seen == START:
            closing = [("RUN_STARTED", {name: fields[name] for name in ("threadId", "runId")})]
        parts[:0] = [
            (Cursor(seen.epoch, seen.sequence + number), *part) for number, part in enumerate(closing, start=1)
        ]
    return [encode(type_, execution_id, cursor, fields) for cursor, type_, fields in parts]


def _answer(finished: Fields) -> str:
    result = RequestView.model_validate(finished["result"])
    return result.response.content if result.response else ""

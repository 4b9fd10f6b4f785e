"""Somebody who looks at a run: takes its frames as an AG-UI client does, and refuses what such a client would refuse.

Faked: nothing. The models are those of the `ag-ui-protocol` package; the rules about order are the ones that both
published clients enforce; `reset` and `resync` are read as `shared_models.frames` describes them.
"""

from dataclasses import dataclass, field

from ag_ui.core.events import Event
from pydantic import TypeAdapter
from pydantic_core import from_json

from shared_models.frames import START, Cursor, Frame

AGUI: TypeAdapter[Event] = TypeAdapter(Event)
STARTS = {
    "TEXT_MESSAGE_START": "messageId",
    "TOOL_CALL_START": "toolCallId",
    "REASONING_START": "messageId",
    "REASONING_MESSAGE_START": "messageId",
    "STEP_STARTED": "stepName",
}
ENDS = {
    "TEXT_MESSAGE_END": "TEXT_MESSAGE_START",
    "TOOL_CALL_END": "TOOL_CALL_START",
    "REASONING_END": "REASONING_START",
    "REASONING_MESSAGE_END": "REASONING_MESSAGE_START",
    "STEP_FINISHED": "STEP_STARTED",
}
INSIDE = {"TEXT_MESSAGE_CONTENT": "TEXT_MESSAGE_START", "TOOL_CALL_ARGS": "TOOL_CALL_START"}


@dataclass
class Viewer:
    """What one client has seen.

    Attributes:
        strict: hold the stream to AG-UI's order, which is promised as long as no frame was lost.
        cursor: of the last frame.
        texts: message ids and their texts, in order, without what was voided, as the snapshot after a reset says.
        resyncs: how often it was told that frames were lost.
        resets: the `keep` of each restart.
        outcome: type and fields of the terminal frame.
    """

    strict: bool = True
    cursor: Cursor = START
    texts: dict[str, str] = field(default_factory=dict)
    resyncs: int = 0
    resets: list[str | None] = field(default_factory=list)
    outcome: tuple[str, dict[str, object]] | None = None
    _open: set[tuple[str, str]] = field(default_factory=set)

    @property
    def text(self) -> str:
        return "".join(self.texts.values())

    def take(self, frame: Frame | None) -> None:
        if frame is None:
            return
        AGUI.validate_json(frame.data)
        fields = from_json(frame.data)
        assert None not in fields.values(), f"null in {frame.data!r} is fatal for clients"
        metadata = {"epoch": frame.cursor.epoch, "sequence": frame.cursor.sequence}
        assert fields["metadata"] == {"execution_id": fields["metadata"]["execution_id"], **metadata}
        assert frame.cursor > self.cursor, f"{frame.cursor} came after {self.cursor}"
        assert self.outcome is None, f"{frame.type} came after the end"
        if self.strict:
            self._check_order(frame, fields)
        self.cursor = frame.cursor
        self._show(frame, fields)

    def _check_order(self, frame: Frame, fields: dict[str, object]) -> None:
        first = {"RUN_STARTED", "RUN_ERROR"}
        assert self.cursor != START or frame.type in first, f"the first frame is {frame.type}"
        assert self.cursor == START or frame.type != "RUN_STARTED", "the run started twice"
        if frame.type in STARTS:
            part = (frame.type, str(fields[STARTS[frame.type]]))
            assert part not in self._open, f"{part} is open already"
            self._open.add(part)
        elif start := ENDS.get(frame.type):
            self._open.remove((start, str(fields[STARTS[start]])))
        elif start := INSIDE.get(frame.type):
            assert (start, str(fields[STARTS[start]])) in self._open, f"{frame.type} is not inside of {start}"
        elif frame.type == "RUN_FINISHED":
            assert not self._open, f"the run finished while {self._open} are open"

    def _show(self, frame: Frame, fields: dict[str, object]) -> None:
        message = str(fields.get("messageId"))
        if frame.type == "TEXT_MESSAGE_START":
            self.texts[message] = ""
        elif frame.type == "TEXT_MESSAGE_CONTENT":
            self.texts[message] = self.texts.get(message, "") + str(fields["delta"])
        elif frame.type == "CUSTOM":
            value = fields["value"]
            assert isinstance(value, dict)
            if fields["name"] == "reset":
                self.resets.append(value.get("keep"))
            else:
                self.resyncs += 1
                self._tell([*value.get("earlier", []), {"messageId": "answer", **value}])
        elif frame.type == "MESSAGES_SNAPSHOT":
            messages = fields["messages"]
            assert isinstance(messages, list)
            asked = max((place for place, one in enumerate(messages) if one["role"] == "user"), default=-1)
            said = [one for one in messages[asked + 1 :] if one["role"] == "assistant"]
            self._tell([{"messageId": one["id"], **one} for one in said])
        elif frame.terminal:
            self.outcome = (frame.type, fields)

    def _tell(self, messages: list[dict[str, str]]) -> None:
        self.texts = {one["messageId"]: one["content"] for one in messages if one.get("content")}


def seen(frames: list[Frame], *, strict: bool = True) -> Viewer:
    """Return somebody who has seen these frames."""
    viewer = Viewer(strict=strict)
    for frame in frames:
        viewer.take(frame)
    return viewer

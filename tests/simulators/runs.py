"""A run's journal and frame log in memory: the journal may crash the run, the log is as strict as a client.

Faked: Postgres (the journal) and Redis (the frames), with the promises that the loop relies on. Nothing of the loop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from shared_clients.errors import Stale
from shared_models.frames import START, Cursor


class Crash(BaseException):
    """The process is gone."""


@dataclass
class MemoryJournal:
    """Steps that outlive the process; `crash_after` lets a process die right after one of its steps is durable."""

    steps: dict[str, str] = field(default_factory=dict)
    keeps: list[Cursor] = field(default_factory=list)
    crash_after: int | None = None
    stale: bool = False

    def finished(self, key: str) -> str | None:
        return self.steps.get(key)

    async def record(self, key: str, message: str, keep: Cursor) -> None:
        if self.stale:
            raise Stale("somebody else owns the run")
        assert key not in self.steps, f"step {key} was done twice"
        assert not self.keeps or keep >= self.keeps[-1], "steps must end in the order of their frames"
        self.steps[key] = message
        self.keeps.append(keep)
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after == 0:
                raise Crash


@dataclass
class FrameLog:
    """The frames of one epoch; an append that an AG-UI client would refuse fails."""

    epoch: int = 1
    frames: list[tuple[Cursor, str, Mapping[str, object]]] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)

    @property
    def last(self) -> Cursor:
        return self.frames[-1][0] if self.frames else START

    def append(self, type_: str, **fields: object) -> Cursor:
        self._check(type_, fields)
        cursor = Cursor(self.epoch, len(self.frames) + 1)
        self.frames.append((cursor, type_, fields))
        return cursor

    def text(self, message_id: UUID, delta: str) -> Cursor:
        return self.append("TEXT_MESSAGE_CONTENT", messageId=str(message_id), delta=delta)

    def void(self, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> None:
        self.open.clear()
        self.append("CUSTOM", name="reset", value=str(keep))
        self.append("MESSAGES_SNAPSHOT", messages=list(snapshot))

    def _check(self, type_: str, fields: Mapping[str, object]) -> None:
        about = str(fields.get("messageId") or fields.get("toolCallId") or "")
        if type_ in {"TEXT_MESSAGE_START", "TOOL_CALL_START"}:
            assert about not in self.seen, f"{about} was started twice"
            self.seen.add(about if type_ == "TEXT_MESSAGE_START" else str(fields["toolCallId"]))
            self.open.add(about if type_ == "TEXT_MESSAGE_START" else str(fields["toolCallId"]))
        elif type_ == "TEXT_MESSAGE_CONTENT":
            assert about in self.open, "content outside of its message"
            assert fields["delta"], "an empty delta"
        elif type_ == "TOOL_CALL_ARGS":
            assert fields["toolCallId"] in self.open, "arguments outside of their call"
        elif type_ in {"TEXT_MESSAGE_END", "TOOL_CALL_END"}:
            self.open.remove(about if type_ == "TEXT_MESSAGE_END" else str(fields["toolCallId"]))

    @property
    def types(self) -> list[str]:
        """The types in order, deltas of one message counted once."""
        types = [type_ for _, type_, _ in self.frames]
        return [
            type_
            for number, type_ in enumerate(types)
            if type_ != "TEXT_MESSAGE_CONTENT" or number == 0 or types[number - 1] != type_
        ]

    def texts(self) -> list[str]:
        """The texts that a client shows in the end: those of the messages that were not taken back."""
        kept: dict[str, str] = {}
        order: list[tuple[Cursor, str]] = []
        for cursor, type_, fields in self.frames:
            if type_ == "TEXT_MESSAGE_START":
                kept[str(fields["messageId"])] = ""
                order.append((cursor, str(fields["messageId"])))
            elif type_ == "TEXT_MESSAGE_CONTENT":
                kept[str(fields["messageId"])] += str(fields["delta"])
            elif type_ == "CUSTOM" and fields["name"] == "reset":
                order = [(at, name) for at, name in order if at <= Cursor.parse(str(fields["value"]))]
        return [kept[name] for _, name in order]

"""What a run has said and its log is not known to hold: it takes numbers and text at once, and never waits.

The writer's task takes a batch, sends it, and strikes off what is in the log. A batch stays the same until it is
through, so that sending it twice does no harm; what comes meanwhile gathers behind it. The texts that followers can
know of are kept as well, because a resync, which makes up for lost frames, tells all of them.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from shared_models.frames import REOPENED, Cursor, Fields, Frame, TextEncoder, encode, reset, resync

MAX_GATHERED: Final = 262_144
"""Characters of text, or bytes of other frames, that may gather; beyond, they are dropped and a resync follows."""


@dataclass(slots=True)
class Entry:
    """A frame to be: what is not encoded yet is text, which may still grow, or a resync, which tells what went before.

    Attributes:
        cursor: its place, given when it was appended.
        frame: None until it is encoded.
        message_id: of text; `parts` are its deltas.
        remains: of a reset, the messages (ids and texts) that it leaves.
    """

    cursor: Cursor
    frame: Frame | None = None
    message_id: UUID | None = None
    parts: list[str] = field(default_factory=list)
    remains: dict[str, list[str]] | None = None

    @property
    def resyncs(self) -> bool:
        return self.frame is None and self.message_id is None


class Told:
    """The run's text messages as far as followers can know them: in the log, or lost and due for a resync."""

    def __init__(self) -> None:
        self._messages: dict[str, list[str]] = {}

    def note(self, entry: Entry) -> None:
        if entry.message_id is not None:
            self._messages.setdefault(str(entry.message_id), []).extend(entry.parts)
        elif entry.remains is not None:
            self._messages = entry.remains

    def messages(self) -> list[tuple[str, str]]:
        return [(message_id, "".join(parts)) for message_id, parts in self._messages.items()]


class Backlog:
    """Of one run in one epoch.

    Attributes:
        waiting: set when there is something to send.
        through: set when there is nothing left to send.
        batch: what is being sent, until it is struck off, dropped or taken anew.
    """

    def __init__(self, execution_id: UUID, thread_id: UUID, epoch: int) -> None:
        self.waiting = asyncio.Event()
        self.through = asyncio.Event()
        self.batch: deque[Entry] = deque()
        self.started = {"threadId": str(thread_id), "runId": str(execution_id)}
        self._execution_id = execution_id
        self._epoch = epoch
        self._sequence = 0
        self._gathered: list[Entry] = []
        self._size = 0
        self._told = Told()
        self._encoder: tuple[UUID, TextEncoder] | None = None
        self._closed = False

    @property
    def last(self) -> Cursor:
        return Cursor(self._epoch, self._sequence)

    @property
    def empty(self) -> bool:
        return not self.batch and not self._gathered

    def event(self, type_: str, fields: Fields, remains: dict[str, list[str]] | None = None) -> Cursor:
        """Take in an event other than text."""
        entry = self._put(remains=remains)
        entry.frame = encode(type_, self._execution_id, entry.cursor, fields)
        self._grow(len(entry.frame.data))
        return entry.cursor

    def reset(self, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> None:
        """Take in a reset and, as AG-UI messages, what remains after it."""
        self.event("CUSTOM", reset(keep), remains=_said(snapshot))
        self.event("MESSAGES_SNAPSHOT", {"messages": list(snapshot)})

    def text(self, message_id: UUID, delta: str) -> Cursor:
        """Take in text; it joins what was said last, if that is of the same message and still here."""
        entry = self._gathered[-1] if self._gathered else None
        if entry is None or entry.message_id != message_id:
            entry = self._put(message_id=message_id)
        entry.parts.append(delta)
        self._grow(len(delta))
        return entry.cursor

    def resync(self) -> None:
        """Take in a resync, which will tell all that was taken in before it."""
        self._put()

    def take(self) -> deque[Entry]:
        """Return the batch to send: the one that is not through yet, or what has gathered, encoded.

        It ends before a resync: to tell what went before it, that must be on its way.
        """
        if not self.batch:
            gathered = self._gathered
            end = next((place for place, entry in enumerate(gathered) if place and entry.resyncs), len(gathered))
            self.batch, self._gathered = deque(gathered[:end]), gathered[end:]
            self._size = self._size if self._gathered else 0
            for entry in self.batch:
                entry.frame = entry.frame or self._encode(entry)
        return self.batch

    def strike_off(self) -> None:
        """Take note that the first frame of the batch is in the log."""
        self._told.note(self.batch.popleft())
        if self.empty:
            self.through.set()

    def drop(self) -> None:
        """Give up what is here: one resync will tell the text that it had."""
        for entry in (*self.batch, *self._gathered):
            self._told.note(entry)
        self.batch, self._gathered, self._size = deque(), [], 0
        self.resync()

    def reopen(self) -> None:
        """Put before the batch what begins a log that has gone anew: RUN_STARTED, and a resync of what was in it.

        The resync has the place of the last frame that was in the log, so that who has seen that one misses nothing.
        """
        told = Cursor(self._epoch, self.batch[0].cursor.sequence - 1)
        if told.sequence > 0:
            self.batch.appendleft(Entry(told, self._encode(Entry(told))))
        self.batch.appendleft(Entry(REOPENED, encode("RUN_STARTED", self._execution_id, REOPENED, self.started)))

    def close(self) -> None:
        """Forget everything, and take nothing in any more."""
        self._closed = True
        self.batch, self._gathered = deque(), []
        self.through.set()

    def _put(self, message_id: UUID | None = None, remains: dict[str, list[str]] | None = None) -> Entry:
        self._sequence += 1
        entry = Entry(self.last, message_id=message_id, remains=remains)
        if not self._closed:
            self._gathered.append(entry)
            self.through.clear()
            self.waiting.set()
        return entry

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_GATHERED and not self._closed:
            self.drop()

    def _encode(self, entry: Entry) -> Frame:
        if entry.message_id is None:
            return encode("CUSTOM", self._execution_id, entry.cursor, resync(self._told.messages()))
        if self._encoder is None or self._encoder[0] != entry.message_id:
            self._encoder = entry.message_id, TextEncoder(self._execution_id, entry.message_id, self._epoch)
        return self._encoder[1].encode(entry.cursor.sequence, "".join(entry.parts))


def _said(snapshot: Sequence[Mapping[str, object]]) -> dict[str, list[str]]:
    """Return what the assistant said after the last user message: that is this run's, what went before is not."""
    said: dict[str, list[str]] = {}
    for message in snapshot:
        if message["role"] == "user":
            said = {}
        elif message["role"] == "assistant" and message.get("content"):
            said[str(message["id"])] = [str(message["content"])]
    return said

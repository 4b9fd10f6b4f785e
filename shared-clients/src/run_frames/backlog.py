"""The frames of a run that may not be in its log yet; the backlog numbers a frame at once and never waits.

The writer's task takes a batch, sends it, and marks the frames that are in the log. A batch stays the same until all
of it is in the log, so that it can be sent twice without harm; new frames gather behind it. The texts that followers
may have seen are kept as well, because a resync, which makes up for lost frames, repeats all of them.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from shared_models.frames import REOPENED, Cursor, Fields, Frame, TextEncoder, TextMessage, encode, reset, resync

MAX_QUEUED: Final = 262_144
"""Characters of text, or bytes of other frames, that may gather; beyond, they are dropped and a resync follows."""


@dataclass(slots=True)
class QueuedFrame:
    """A frame that is to be appended; text and resyncs are encoded when they are sent.

    Text may grow until it is sent; a resync repeats all text that was queued before the resync.

    Attributes:
        cursor: its position, given when it was queued.
        frame: None until it is encoded.
        message_id: of text; `parts` are its deltas.
        remaining_messages: of a reset, the ids and texts of the messages that it leaves.
    """

    cursor: Cursor
    frame: Frame | None = None
    message_id: UUID | None = None
    parts: list[str] = field(default_factory=list)
    remaining_messages: dict[str, list[str]] | None = None

    @property
    def is_unsent_resync(self) -> bool:
        return self.frame is None and self.message_id is None


class VisibleText:
    """The text messages that followers may have seen: in the log, or lost and due for a resync."""

    def __init__(self) -> None:
        self._messages: dict[str, list[str]] = {}

    def add(self, queued: QueuedFrame) -> None:
        if queued.message_id is not None:
            self._messages.setdefault(str(queued.message_id), []).extend(queued.parts)
        elif queued.remaining_messages is not None:
            self._messages = queued.remaining_messages

    def messages(self) -> list[TextMessage]:
        """Return the messages with their text until now."""
        return [TextMessage(message_id, "".join(parts)) for message_id, parts in self._messages.items()]


class Backlog:
    """The frames of one run in one epoch that are not in its log.

    Attributes:
        has_frames: set when there is something to send.
        flushed: set when there is nothing left to send.
        batch: the frames that are being sent, until they are in the log or dropped.
        run_fields: of a RUN_STARTED event.
    """

    def __init__(self, execution_id: UUID, thread_id: UUID, epoch: int) -> None:
        self.has_frames = asyncio.Event()
        self.flushed = asyncio.Event()
        self.batch: deque[QueuedFrame] = deque()
        self.run_fields = {"threadId": str(thread_id), "runId": str(execution_id)}
        self._execution_id = execution_id
        self._epoch = epoch
        self._sequence = 0
        self._queue: list[QueuedFrame] = []
        self._queued_size = 0
        self._visible = VisibleText()
        self._encoder: tuple[UUID, TextEncoder] | None = None
        self._closed = False

    @property
    def last(self) -> Cursor:
        """The cursor of the last frame that was queued; of sequence 0 before the first."""
        return Cursor(self._epoch, self._sequence)

    @property
    def empty(self) -> bool:
        return not self.batch and not self._queue

    def add_event(self, type_: str, fields: Fields, remaining_messages: dict[str, list[str]] | None = None) -> Cursor:
        """Queue an event other than text."""
        queued = self._enqueue(remaining_messages=remaining_messages)
        queued.frame = encode(type_, self._execution_id, queued.cursor, fields)
        self._grow(len(queued.frame.data))
        return queued.cursor

    def add_reset(self, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> None:
        """Queue a reset and a snapshot of the AG-UI messages that remain after it."""
        self.add_event("CUSTOM", reset(keep), remaining_messages=_messages_of_this_run(snapshot))
        self.add_event("MESSAGES_SNAPSHOT", {"messages": list(snapshot)})

    def add_text(self, message_id: UUID, delta: str) -> Cursor:
        """Queue text; it joins the last queued frame where that is text of the same message."""
        queued = self._queue[-1] if self._queue else None
        if queued is None or queued.message_id != message_id:
            queued = self._enqueue(message_id=message_id)
        queued.parts.append(delta)
        self._grow(len(delta))
        return queued.cursor

    def add_resync(self) -> None:
        """Queue a resync, which will repeat all text that was queued before it."""
        self._enqueue()

    def next_batch(self) -> deque[QueuedFrame]:
        """Return the batch to send, encoded: the unfinished one, or else the queued frames.

        A new batch ends before a resync, which can only repeat text that has been sent.
        """
        if not self.batch:
            queue = self._queue
            end = next((index for index, queued in enumerate(queue) if index and queued.is_unsent_resync), len(queue))
            self.batch, self._queue = deque(queue[:end]), queue[end:]
            self._queued_size = self._queued_size if self._queue else 0
            for queued in self.batch:
                queued.frame = queued.frame or self._encode(queued)
        return self.batch

    def mark_appended(self) -> None:
        """Remove the first frame of the batch, because it is in the log."""
        self._visible.add(self.batch.popleft())
        if self.empty:
            self.flushed.set()

    def replace_by_resync(self) -> None:
        """Drop all frames, and queue one resync that repeats their text."""
        for queued in (*self.batch, *self._queue):
            self._visible.add(queued)
        self.batch, self._queue, self._queued_size = deque(), [], 0
        self.add_resync()

    def begin_new_log(self) -> None:
        """Put the start of a new log before the batch, because the old log is gone: RUN_STARTED and a resync.

        The resync has the cursor of the last frame of the old log, so that a follower of that frame misses nothing.
        """
        last_appended = Cursor(self._epoch, self.batch[0].cursor.sequence - 1)
        if last_appended.sequence > 0:
            self.batch.appendleft(QueuedFrame(last_appended, self._encode(QueuedFrame(last_appended))))
        run_started = encode("RUN_STARTED", self._execution_id, REOPENED, self.run_fields)
        self.batch.appendleft(QueuedFrame(REOPENED, run_started))

    def close(self) -> None:
        """Drop all frames; later frames are numbered and dropped."""
        self._closed = True
        self.batch, self._queue = deque(), []
        self.flushed.set()

    def _enqueue(
        self, message_id: UUID | None = None, remaining_messages: dict[str, list[str]] | None = None
    ) -> QueuedFrame:
        self._sequence += 1
        queued = QueuedFrame(self.last, message_id=message_id, remaining_messages=remaining_messages)
        if not self._closed:
            self._queue.append(queued)
            self.flushed.clear()
            self.has_frames.set()
        return queued

    def _grow(self, size: int) -> None:
        self._queued_size += size
        if self._queued_size > MAX_QUEUED and not self._closed:
            self.replace_by_resync()

    def _encode(self, queued: QueuedFrame) -> Frame:
        if queued.message_id is None:
            return encode("CUSTOM", self._execution_id, queued.cursor, resync(self._visible.messages()))
        if self._encoder is None or self._encoder[0] != queued.message_id:
            self._encoder = queued.message_id, TextEncoder(self._execution_id, queued.message_id, self._epoch)
        return self._encoder[1].encode(queued.cursor.sequence, "".join(queued.parts))


def _messages_of_this_run(snapshot: Sequence[Mapping[str, object]]) -> dict[str, list[str]]:
    """Return the assistant's messages after the last user message; earlier ones belong to earlier runs."""
    messages: dict[str, list[str]] = {}
    for message in snapshot:
        if message["role"] == "user":
            messages = {}
        elif message["role"] == "assistant" and message.get("content"):
            messages[str(message["id"])] = [str(message["content"])]
    return messages

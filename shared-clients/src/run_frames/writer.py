"""The writing side: a task appends the frames of a run to its log, and the run never waits for that.

The task sends all queued frames in one round trip. Text that arrives during a round trip becomes one frame, so frames
keep the pace of the network. Their ids make it safe to send a batch again. A fault of Redis costs live frames, never
the run.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Self
from uuid import UUID

import structlog

from run_frames import metrics
from run_frames.backlog import Backlog, QueuedFrame
from run_frames.failpoints import Failpoint
from run_frames.log import append, is_refusal, log_key, read_log, read_page
from shared_clients.failpoints import reached
from shared_clients.loops import Backoff
from shared_clients.redis import REDIS_ERRORS, Redis
from shared_models.frames import Cursor, OpenParts

log = structlog.get_logger()

READ_LOG_SECONDS: Final = 1.0
FLUSH_SECONDS: Final = 1.0
_PAUSES: Final = Backoff(first=0.05, cap=1.0)


class FrameWriter:
    """Writes one run's frames under one epoch; an async context manager that flushes when it is left.

    Args:
        redis: the connections of this process.
        tenant: of the run.
        execution_id: of the run.
        thread_id: the session of the run, in AG-UI's word.
        epoch: of the claim on the run.
        still_owned: asks Postgres whether that claim still holds; called only when the log is gone, and may raise.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        tenant: str,
        execution_id: UUID,
        thread_id: UUID,
        epoch: int,
        still_owned: Callable[[], Awaitable[bool]],
    ) -> None:
        self._redis = redis
        self._key = log_key(tenant, execution_id)
        self._epoch = epoch
        self._open = OpenParts()
        self._backlog = Backlog(execution_id, thread_id, epoch)
        self._sender = _Sender(redis, self._key, self._backlog, still_owned)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._sender.run(), name=self._key)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def last(self) -> Cursor:
        """The cursor of the last frame appended; of sequence 0 before the first."""
        return self._backlog.last

    @property
    def fenced(self) -> bool:
        """Whether this log takes no more frames of this writer: it has another writer, or the run has ended."""
        return self._sender.fenced

    @property
    def whole(self) -> bool:
        """Whether the log holds all that was appended, as frames or in a resync."""
        return self._backlog.empty and not self.fenced

    async def begin(self, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> None:
        """Append the start of the run, or in a later epoch a reset to its last finished step; takes at most 1 s.

        Args:
            keep: the last frame of the last finished step; None voids all frames of the run.
            snapshot: AG-UI messages without the voided part, under the ids that their frames had. Assistant messages
                after the last user message belong to this run.
        """
        if self._epoch == 1:
            self.append("RUN_STARTED", **self._backlog.run_fields)
            return
        still_open = OpenParts()
        try:
            async with asyncio.timeout(READ_LOG_SECONDS):
                still_open = OpenParts(await read_log(self._redis, self._key))
        except REDIS_ERRORS as error:
            self._redis.writes.failed(error)
        self._reset(still_open, keep, snapshot)

    def void(self, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> None:
        """Void the frames after `keep`, because another model answers instead in the same epoch."""
        self._reset(self._open, keep, snapshot)

    def append(self, type_: str, **fields: object) -> Cursor:
        """Append an AG-UI event, given its camelCase fields; fields that are None are left out."""
        self._open.note_event(type_, fields)
        return self._backlog.add_event(type_, fields)

    def text(self, message_id: UUID, delta: str) -> Cursor:
        """Append text to a message that TEXT_MESSAGE_START has opened."""
        return self._backlog.add_text(message_id, delta) if delta else self.last

    async def close(self) -> None:
        """Send the queued frames, for at most `FLUSH_SECONDS`, and end."""
        try:
            if not self._backlog.empty:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._backlog.flushed.wait(), FLUSH_SECONDS)
        finally:
            self._task.cancel()
        await asyncio.wait([self._task])

    def _reset(self, still_open: OpenParts, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> None:
        for type_, fields in still_open.closing():
            self.append(type_, **fields)
        self._backlog.add_reset(keep, snapshot)


class _Sender:
    """Appends a backlog to the log, across all faults of Redis, until the run has another owner."""

    def __init__(self, redis: Redis, key: str, backlog: Backlog, still_owned: Callable[[], Awaitable[bool]]) -> None:
        self.fenced = False
        self._redis = redis
        self._key = key
        self._backlog = backlog
        self._still_owned = still_owned
        self._length: int | None = None

    async def run(self) -> None:
        failures = 0
        while not self.fenced:
            if self._backlog.empty:
                self._backlog.has_frames.clear()
                await self._backlog.has_frames.wait()
            try:
                await self._send(self._backlog.next_batch())
                failures = 0
            except Exception as error:  # noqa: BLE001 - a fault of frames must not end a run or hide the rest of it
                failures += 1
                self._redis.writes.failed(error)
                await asyncio.sleep(_PAUSES.pause(failures))

    async def _send(self, batch: deque[QueuedFrame]) -> None:
        """Send a batch and mark the frames that are in the log; the others are sent again.

        The backlog may drop the batch at each await; from then on the replies to the batch no longer matter.
        """
        frames = [queued.frame for queued in batch if queued.frame]
        create = frames[0].type == "RUN_STARTED"
        *replies, length = await append(self._redis, self._key, frames, ("XLEN", self._key), create=create)
        reached(Failpoint.AFTER_FRAME_BEFORE_RENEW)
        for reply in replies:
            in_log = not isinstance(reply, Exception) or await self._is_in_log(batch[0], reply)
            if not in_log or self._backlog.batch is not batch:
                return
            if reply is None:
                await self._begin_new_log(batch)
                return
            self._backlog.mark_appended()
        metrics.FRAMES_APPENDED.inc(len(frames))
        self._redis.writes.succeeded()
        self._check_length(length, len(frames))

    async def _is_in_log(self, queued: QueuedFrame, refusal: Exception) -> bool:
        """Tell whether a refused frame is in the log because of an earlier try.

        For a missing frame, the writer is fenced if the log is beyond the writer's last frame; if not, a resync
        replaces the queued frames.
        """
        if not is_refusal(refusal):
            raise refusal
        before = Cursor(queued.cursor.epoch, queued.cursor.sequence - 1)
        log = await read_page(self._redis, self._key, before)
        if log[:1] == [queued.frame]:
            return True
        if log and log[-1].cursor > self._backlog.last:
            self._fence()
        else:
            self._backlog.replace_by_resync()
        return False

    async def _begin_new_log(self, batch: deque[QueuedFrame]) -> None:
        if not await self._still_owned():
            self._fence()
        elif self._backlog.batch is batch:
            self._backlog.begin_new_log()
            self._length = None

    def _check_length(self, length: object, added: int) -> None:
        """Queue a resync if the log is too short, because then Redis was restored from an older copy."""
        if not isinstance(length, int):
            return
        if self._length is not None and length < self._length + added:
            self._backlog.add_resync()
        self._length = length

    def _fence(self) -> None:
        self.fenced = True
        self._backlog.close()
        log.info("frames_fenced", stream=self._key)

"""The writing side: what a run says goes into its log, and the run never waits for that.

A task sends what has gathered in one round trip. Text that comes while a round trip lasts is one frame by the time it
is sent, so frames keep the pace of the network. Ids make it safe to send a batch again. Trouble with Redis costs live
frames, never the run.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Self
from uuid import UUID

import structlog

from run_frames import metrics
from run_frames.backlog import Backlog, Entry
from run_frames.failpoints import Failpoint
from run_frames.log import append, is_refusal, log_key, read_log, read_page
from shared_clients.failpoints import reached
from shared_clients.loops import Backoff
from shared_clients.redis import REDIS_ERRORS, Redis
from shared_models.frames import Cursor, OpenParts

log = structlog.get_logger()

BEGIN_SECONDS: Final = 1.0
FLUSH_SECONDS: Final = 1.0
_PAUSES: Final = Backoff(first=0.05, cap=1.0)


class FrameWriter:
    """Writes one run's frames under one epoch; an async context manager that flushes when it is left.

    Args:
        redis, tenant, execution_id, thread_id: of which run; its thread is the session.
        epoch: of the claim under which it works.
        still_owned: asks Postgres whether that claim still holds; called only when the log has gone, may raise.
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
        """Whether somebody else writes this log now, or the run has ended: nothing of ours gets in any more."""
        return self._sender.fenced

    @property
    def whole(self) -> bool:
        """Whether the log holds all that was appended, as frames or told by a resync."""
        return self._backlog.empty and not self.fenced

    async def begin(self, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> None:
        """Say that the run starts or, in a later epoch, goes on from its last finished step; takes at most 1 s.

        Args:
            keep: the last frame of the last finished step; None voids all that was said.
            snapshot: AG-UI messages without the voided part, under the ids that their frames had. What the assistant
                says after the last user message is this run's.
        """
        if self._epoch == 1:
            self.append("RUN_STARTED", **self._backlog.started)
            return
        still_open = OpenParts()
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                still_open = OpenParts(await read_log(self._redis, self._key))
        except REDIS_ERRORS as error:
            self._redis.writes.failed(error)
        self._restart(still_open, keep, snapshot)

    def void(self, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> None:
        """Say that what came after `keep` does not count: another model answers instead, in the same epoch."""
        self._restart(self._open, keep, snapshot)

    def append(self, type_: str, **fields: object) -> Cursor:
        """Append an AG-UI event, by its camelCase fields; one that is None is left out."""
        self._open.saw(type_, fields)
        return self._backlog.event(type_, fields)

    def text(self, message_id: UUID, delta: str) -> Cursor:
        """Append to a message that TEXT_MESSAGE_START has opened."""
        return self._backlog.text(message_id, delta) if delta else self.last

    async def close(self) -> None:
        """Send what has gathered, for at most `FLUSH_SECONDS`, and end."""
        try:
            if not self._backlog.empty:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._backlog.through.wait(), FLUSH_SECONDS)
        finally:
            self._task.cancel()
        await asyncio.wait([self._task])

    def _restart(self, still_open: OpenParts, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> None:
        for type_, fields in still_open.closing():
            self.append(type_, **fields)
        self._backlog.reset(keep, snapshot)


class _Sender:
    """Brings a backlog into the log, whatever happens to Redis, until somebody else owns the run."""

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
                self._backlog.waiting.clear()
                await self._backlog.waiting.wait()
            try:
                await self._send(self._backlog.take())
                failures = 0
            except Exception as error:  # noqa: BLE001 - no trouble with frames may end a run, nor silence the rest of it
                failures += 1
                self._redis.writes.failed(error)
                await asyncio.sleep(_PAUSES.pause(failures))

    async def _send(self, batch: deque[Entry]) -> None:
        """Send a batch and strike off what is in the log; what is left goes again.

        Whenever this waits, the backlog may have dropped the batch: then its fate no longer matters.
        """
        frames = [entry.frame for entry in batch if entry.frame]
        makes = frames[0].type == "RUN_STARTED"
        *replies, length = await append(self._redis, self._key, frames, ("XLEN", self._key), makes=makes)
        reached(Failpoint.AFTER_FRAME_BEFORE_RENEW)
        for reply in replies:
            arrived = not isinstance(reply, Exception) or await self._arrived_before(batch[0], reply)
            if not arrived or self._backlog.batch is not batch:
                return
            if reply is None:
                await self._reopen(batch)
                return
            self._backlog.strike_off()
        metrics.FRAMES_APPENDED.inc(len(frames))
        self._redis.writes.answered()
        self._check_length(length, len(frames))

    async def _arrived_before(self, entry: Entry, refusal: Exception) -> bool:
        """Tell a frame that an earlier try has brought into the log from one that has no place there any more."""
        if not is_refusal(refusal):
            raise refusal
        there = await read_page(self._redis, self._key, Cursor(entry.cursor.epoch, entry.cursor.sequence - 1))
        if there[:1] == [entry.frame]:
            return True
        if there and there[-1].cursor > self._backlog.last:
            self._fence()
        else:
            self._backlog.drop()
        return False

    async def _reopen(self, batch: deque[Entry]) -> None:
        if not await self._still_owned():
            self._fence()
        elif self._backlog.batch is batch:
            self._backlog.reopen()
            self._length = None

    def _check_length(self, length: object, added: int) -> None:
        """Resync if the log holds less than before and what was added: Redis came back from an old copy."""
        if not isinstance(length, int):
            return
        if self._length is not None and length < self._length + added:
            self._backlog.resync()
        self._length = length

    def _fence(self) -> None:
        self.fenced = True
        self._backlog.close()
        log.info("frames_fenced", stream=self._key)

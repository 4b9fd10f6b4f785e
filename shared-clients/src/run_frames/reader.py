"""The reading side: any number of followers on any number of runs, and one blocked read of Redis for all of them.

A stream ends with the terminal frame in the log or with the durable row of the run, whichever comes first. The rows of
all silent streams are queried together once a second, so a follower reaches the end without Redis, too.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Final, Self, cast
from uuid import UUID

from run_frames import metrics
from run_frames.follower import MAX_PAGE, FollowedLog, Follower, FollowerState, within_page_limit
from run_frames.log import PAGE, StreamEntry, log_key, read_last, read_page, to_frame
from shared_clients.loops import Backoff, Tasks, every
from shared_clients.redis import REDIS_ERRORS, OutageLog, Redis, exchange
from shared_models.frames import START, Cursor, Frame, OpenParts, ending
from shared_models.ids import new_id

BLOCK_SECONDS: Final = 2.0
GRACE_SECONDS: Final = 3.0
"""How late a blocked read may return before its connection counts as dead."""
WAKEUP_STREAM_SECONDS: Final = 60
"""How long Redis keeps the wakeup stream of a reader after its last entry."""
SILENCE_SECONDS: Final = 1.0
HEARTBEAT_SECONDS: Final = 15.0
_PAUSES: Final = Backoff(first=0.05, cap=1.0)

type Outcomes = Mapping[UUID, tuple[str, Mapping[str, object]]]
"""The type and the fields of the terminal frame of each run."""
type ListOutcomes = Callable[[str, Sequence[UUID]], Awaitable[Outcomes]]
"""Queries the durable rows of a tenant's runs, and returns the outcome of each run that has ended."""


class FrameReader:
    """Reads the logs of runs for this process; an async context manager.

    Args:
        redis: the connections of this process.
        list_outcomes: queries the durable rows; it may raise, and is called again.
    """

    def __init__(self, redis: Redis, list_outcomes: ListOutcomes) -> None:
        self._redis = redis
        self._list_outcomes = list_outcomes
        self._rows = OutageLog("durable rows")
        self._tasks = Tasks()
        self._followed: dict[str, FollowedLog] = {}
        self._has_logs = asyncio.Event()
        self._wakeup_stream = f"frames-bell:{new_id()}"
        self._last_wakeup = "0-0"
        self._wakeup_sent = False
        self._drained = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start("frames_read", self._read_all)
        self._tasks.start("frames_end", every(SILENCE_SECONDS, self._end_silent))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.__aexit__()
        self.drain()

    def drain(self) -> None:
        """Stop all streams without a terminal frame, and start no more; their clients resume at another replica."""
        self._drained = True
        for log in self._followed.values():
            for follower in log.followers:
                follower.end()

    async def follow(
        self, tenant: str, execution_id: UUID, after: Cursor, *, heartbeat: float = HEARTBEAT_SECONDS
    ) -> AsyncGenerator[Frame | None]:
        """Yield the frames after a cursor, each once and in order, up to the terminal one.

        None means that there was no frame for `heartbeat` seconds. After the cursor of a terminal frame, nothing is
        yielded. If the durable row ends the stream, its last frames are those of `shared_models.frames.ending`. When
        this reader is closed, its streams stop without a terminal frame. Close or drop the generator to leave.
        """
        if after.ended or self._drained:
            return
        follower = Follower(tenant, execution_id, after)
        log = self._followed.setdefault(log_key(tenant, execution_id), FollowedLog(follower.run))
        log.followers.add(follower)
        metrics.STREAMS_OPEN.inc()
        try:
            while not follower.done:
                follower.client_waits = True
                frame = await self._next(follower, log, heartbeat)
                follower.client_waits = False
                if frame is not None or not follower.done:
                    yield frame
                if frame is not None and frame.terminal:
                    return
        finally:
            metrics.STREAMS_OPEN.dec()
            log.followers.discard(follower)
            if not log.followers:
                self._followed.pop(log.key, None)

    async def may_hold(self, tenant: str, execution_id: UUID, cursor: Cursor, *, ended: bool) -> bool:
        """Tell whether a cursor may be one of this run; False where it is certainly one of another run.

        Args:
            tenant: of the run.
            execution_id: of the run.
            cursor: of the last frame that a client has.
            ended: whether the durable row of the run says that it has ended; it decides where there is no log.
        """
        if cursor == START:
            return True
        try:
            last = await read_last(self._redis, log_key(tenant, execution_id))
        except REDIS_ERRORS as error:
            self._redis.reads.failed(error)
            return ended or not cursor.ended
        if last is None:
            return ended
        if cursor.ended:
            return cursor == last.cursor or (ended and not last.cursor.ended)
        return cursor <= last.cursor

    async def _next(self, follower: Follower, log: FollowedLog, heartbeat: float) -> Frame | None:
        """Return the next frame, or None after `heartbeat` seconds or at the end."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + heartbeat
        failures = 0
        while not follower.done:
            if (frame := follower.next_frame()) is not None:
                return frame
            until = deadline
            if follower.must_read_log:
                if await self._read_page_for(follower, log):
                    continue
                failures += 1
                until = min(deadline, clock() + _PAUSES.pause(failures))
            await follower.wait_for_change(until)
            if clock() >= deadline:
                return follower.next_frame()
        return None

    async def _read_page_for(self, follower: Follower, log: FollowedLog) -> bool:
        """Read a page of the log for one follower; return whether Redis answered."""
        follower.start_reading()
        position_before = log.position
        try:
            frames = await read_page(self._redis, log.key, follower.cursor, MAX_PAGE)
        except REDIS_ERRORS as error:
            self._redis.reads.failed(error)
            return False
        self._redis.reads.succeeded()
        if follower.state is FollowerState.ENDED:
            return True
        page = within_page_limit(frames)
        follower.add_page(page, last=len(page) == len(frames) < MAX_PAGE)
        log_end = page[-1].cursor if page else follower.cursor
        if follower.state is FollowerState.LIVE and log.go_live(follower, log_end, position_before):
            self._has_logs.set()
            await self._wake_blocked_read()
        return True

    async def _wake_blocked_read(self) -> None:
        """Make the blocked read return and use the new positions; without Redis, it does so when it times out."""
        if self._wakeup_sent:
            return
        self._wakeup_sent = True
        try:
            await self._redis.batched.send(
                ("XADD", self._wakeup_stream, "MAXLEN", 1, "*", "t", ""),
                ("EXPIRE", self._wakeup_stream, WAKEUP_STREAM_SECONDS),
            )
            self._redis.writes.succeeded()
        except REDIS_ERRORS as error:
            self._redis.writes.failed(error)

    async def _read_all(self) -> None:
        """Read the followed logs for all followers until cancelled."""
        failures = 0
        while True:
            if not self._followed:
                self._has_logs.clear()
            await self._has_logs.wait()
            try:
                await self._read_once()
                failures = 0
            except REDIS_ERRORS as error:
                failures += 1
                self._last_wakeup = "0-0"
                self._redis.reads.failed(error)
                await asyncio.sleep(_PAUSES.pause(failures))

    async def _read_once(self) -> None:
        self._wakeup_sent = False
        positions = {log.key: str(log.position) for log in self._followed.values() if log.position}
        positions[self._wakeup_stream] = self._last_wakeup
        command = ("XREAD", "COUNT", PAGE, "BLOCK", round(BLOCK_SECONDS * 1000), "STREAMS")
        async with asyncio.timeout(BLOCK_SECONDS + GRACE_SECONDS):
            (reply,) = await exchange(self._redis.blocking, [(*command, *positions, *positions.values())])
        if isinstance(reply, Exception):
            raise reply
        self._redis.reads.succeeded()
        for raw_key, entries in cast("list[tuple[bytes, list[StreamEntry]]]", reply or []):
            key = raw_key.decode()
            if key == self._wakeup_stream:
                self._last_wakeup = entries[-1][0].decode()
            elif log := self._followed.get(key):
                log.deliver([to_frame(entry) for entry in entries], read_from=positions[key])

    async def _end_silent(self) -> None:
        """End the streams that are silent and whose runs have ended."""
        silent = [
            follower
            for log in self._followed.values()
            for follower in log.followers
            if follower.silent(SILENCE_SECONDS)
        ]
        if not silent:
            return
        try:
            outcomes = await self._outcomes_of(silent)
        except Exception as error:  # noqa: BLE001 - any error of the rows' owner: the next try is in a second
            self._rows.failed(error)
            return
        self._rows.succeeded()
        ended = [follower for follower in silent if follower.run.execution_id in outcomes]
        endings: dict[tuple[UUID, Cursor], list[Frame]] = {}
        for follower, log_has_more in zip(ended, await asyncio.gather(*map(self._log_has_more, ended)), strict=True):
            execution_id, seen = follower.run.execution_id, follower.cursor
            if log_has_more:
                follower.read_log_again()
            elif follower.silent(SILENCE_SECONDS):
                if (execution_id, seen) not in endings:
                    endings[execution_id, seen] = ending(
                        execution_id, seen, outcomes[execution_id], epoch=seen.epoch, still_open=OpenParts()
                    )
                follower.end(endings[execution_id, seen])

    async def _outcomes_of(self, silent: Sequence[Follower]) -> Outcomes:
        """Query the durable rows of all silent runs, with one call for each tenant."""
        runs: dict[str, dict[UUID, None]] = {}
        for follower in silent:
            runs.setdefault(follower.run.tenant, {})[follower.run.execution_id] = None
        outcomes: dict[UUID, tuple[str, Mapping[str, object]]] = {}
        for tenant, execution_ids in runs.items():
            outcomes.update(await self._list_outcomes(tenant, list(execution_ids)))
        return outcomes

    async def _log_has_more(self, follower: Follower) -> bool:
        """Tell whether the log has more frames for a follower, which this process was too slow to read."""
        try:
            return bool(await read_page(self._redis, log_key(*follower.run), follower.cursor))
        except REDIS_ERRORS as error:
            self._redis.reads.failed(error)
            return False

"""The reading side: any number of followers on any number of runs, and one blocked read of Redis for all of them.

What ends a stream is whichever comes first, the terminal frame in the log or the run's durable row, which is asked for
once a second for all streams that are silent. So a follower reaches the end without Redis, too.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Final, Self, cast
from uuid import UUID

from run_frames import metrics
from run_frames.follower import MAX_PAGE, Followed, Follower, fitting
from run_frames.log import PAGE, Entry, log_key, read_page, to_frame
from shared_clients.loops import Backoff, Tasks, every
from shared_clients.redis import REDIS_ERRORS, Outage, Redis, exchange
from shared_models.frames import Cursor, Frame, OpenParts, ending
from shared_models.ids import new_id

BLOCK_SECONDS: Final = 2.0
LATE_SECONDS: Final = 3.0
"""After a blocked read should have returned; then its connection is taken for dead."""
BELL_SECONDS: Final = 60
SILENCE_SECONDS: Final = 1.0
BEAT_SECONDS: Final = 15.0
_PAUSES: Final = Backoff(first=0.05, cap=1.0)

type Finished = Callable[[str, Sequence[UUID]], Awaitable[Mapping[UUID, tuple[str, Mapping[str, object]]]]]
"""Loads, for a tenant and ids of its runs, type and fields of the terminal frame of each run that has ended."""


class FrameReader:
    """Reads the logs of runs for this process; an async context manager.

    Args:
        finished: asks the durable rows; may raise, and is asked again.
    """

    def __init__(self, redis: Redis, finished: Finished) -> None:
        self._redis = redis
        self._finished = finished
        self._rows = Outage("durable rows")
        self._tasks = Tasks()
        self._followed: dict[str, Followed] = {}
        self._some = asyncio.Event()
        self._bell = f"frames-bell:{new_id()}"
        self._heard = "0-0"
        self._rung = False
        self._drained = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start("frames_read", self._read)
        self._tasks.start("frames_end", every(SILENCE_SECONDS, self._end_silent))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.__aexit__()
        self.drain()

    def drain(self) -> None:
        """Stop all streams without an end, and let none begin: their clients go on at another replica."""
        self._drained = True
        for followed in self._followed.values():
            for follower in followed.followers:
                follower.end()

    async def follow(
        self, tenant: str, execution_id: UUID, after: Cursor, *, beat: float = BEAT_SECONDS
    ) -> AsyncGenerator[Frame | None]:
        """Yield the frames after a cursor, each once and in order, up to the terminal one.

        None means that there was nothing for `beat` seconds. After the cursor of a terminal frame nothing is yielded.
        If the durable row comes first, the end is as `shared_models.frames.ending` says. When this reader is closed,
        its streams stop without an end. Close the generator (or drop it) to leave.
        """
        if after.ended or self._drained:
            return
        follower = Follower(tenant, execution_id, after)
        followed = self._followed.setdefault(log_key(tenant, execution_id), Followed(follower.run))
        followed.followers.add(follower)
        metrics.STREAMS_OPEN.inc()
        try:
            while not follower.done:
                follower.wanting = True
                frame = await self._next(follower, followed, beat)
                follower.wanting = False
                if frame is not None or not follower.done:
                    yield frame
                if frame is not None and frame.terminal:
                    return
        finally:
            metrics.STREAMS_OPEN.dec()
            followed.followers.discard(follower)
            if not followed.followers:
                self._followed.pop(followed.key, None)

    async def _next(self, follower: Follower, followed: Followed, beat: float) -> Frame | None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + beat
        failures = 0
        while not follower.done:
            if (frame := follower.take()) is not None:
                return frame
            until = deadline
            if follower.behind:
                if await self._read_on(follower, followed):
                    continue
                failures += 1
                until = min(deadline, clock() + _PAUSES.pause(failures))
            await follower.wait(until)
            if clock() >= deadline:
                return follower.take()
        return None

    async def _read_on(self, follower: Follower, followed: Followed) -> bool:
        """Read a page of the log for one follower; return whether that went well."""
        follower.listening = True
        position = followed.position
        try:
            read = await read_page(self._redis, followed.key, follower.cursor, MAX_PAGE)
        except REDIS_ERRORS as error:
            self._redis.reads.failed(error)
            return False
        self._redis.reads.answered()
        if follower.ended:
            return True
        page = fitting(read)
        follower.turn(page, last=len(page) == len(read) < MAX_PAGE)
        end = page[-1].cursor if page else follower.cursor
        if not follower.behind and followed.join(follower, end, position):
            self._some.set()
            await self._ring()
        return True

    async def _ring(self) -> None:
        """Wake the blocked read, so that it takes up what has changed; without Redis, it does so a little later."""
        if self._rung:
            return
        self._rung = True
        try:
            await self._redis.together.send(
                ("XADD", self._bell, "MAXLEN", 1, "*", "t", ""), ("EXPIRE", self._bell, BELL_SECONDS)
            )
            self._redis.writes.answered()
        except REDIS_ERRORS as error:
            self._redis.writes.failed(error)

    async def _read(self) -> None:
        """Read for all, for ever."""
        failures = 0
        while True:
            if not self._followed:
                self._some.clear()
            await self._some.wait()
            try:
                await self._read_once()
                failures = 0
            except REDIS_ERRORS as error:
                failures += 1
                self._heard = "0-0"
                self._redis.reads.failed(error)
                await asyncio.sleep(_PAUSES.pause(failures))

    async def _read_once(self) -> None:
        self._rung = False
        places = {followed.key: str(followed.position) for followed in self._followed.values() if followed.position}
        places[self._bell] = self._heard
        waiting = ("XREAD", "COUNT", PAGE, "BLOCK", round(BLOCK_SECONDS * 1000))
        async with asyncio.timeout(BLOCK_SECONDS + LATE_SECONDS):
            (reply,) = await exchange(self._redis.blocking, [(*waiting, "STREAMS", *places, *places.values())])
        if isinstance(reply, Exception):
            raise reply
        self._redis.reads.answered()
        for key, entries in cast("list[tuple[bytes, list[Entry]]]", reply or []):
            name = key.decode()
            if name == self._bell:
                self._heard = entries[-1][0].decode()
            elif followed := self._followed.get(name):
                followed.deliver([to_frame(entry) for entry in entries], places[name])

    async def _end_silent(self) -> None:
        """End the streams that are silent and whose runs have ended."""
        silent = [
            follower
            for followed in self._followed.values()
            for follower in followed.followers
            if follower.silent(SILENCE_SECONDS)
        ]
        if not silent:
            return
        try:
            rows = await self._load_ends(silent)
        except Exception as error:  # noqa: BLE001 - whatever the row's owner raises, it is asked again in a second
            self._rows.failed(error)
            return
        self._rows.answered()
        over = [follower for follower in silent if follower.run[1] in rows]
        ends: dict[tuple[UUID, Cursor], list[Frame]] = {}
        for follower, goes_on in zip(over, await asyncio.gather(*map(self._goes_on, over)), strict=True):
            execution_id, seen = follower.run[1], follower.cursor
            if goes_on:
                follower.read_again()
            elif follower.silent(SILENCE_SECONDS):
                if (execution_id, seen) not in ends:
                    outcome = rows[execution_id]
                    ends[execution_id, seen] = ending(
                        execution_id, seen, outcome, epoch=seen.epoch, still_open=OpenParts()
                    )
                follower.end(ends[execution_id, seen])

    async def _load_ends(self, silent: Sequence[Follower]) -> Mapping[UUID, tuple[str, Mapping[str, object]]]:
        """Load the ends of all silent runs: one call for each tenant among them."""
        runs: dict[str, dict[UUID, None]] = {}
        for follower in silent:
            tenant, execution_id = follower.run
            runs.setdefault(tenant, {})[execution_id] = None
        ends: dict[UUID, tuple[str, Mapping[str, object]]] = {}
        for tenant, execution_ids in runs.items():
            ends.update(await self._finished(tenant, list(execution_ids)))
        return ends

    async def _goes_on(self, follower: Follower) -> bool:
        """Tell whether the log has more for a follower: then a process that was held up must not cut it short."""
        try:
            return bool(await read_page(self._redis, log_key(*follower.run), follower.cursor))
        except REDIS_ERRORS as error:
            self._redis.reads.failed(error)
            return False

"""The position of one reader in the log of one run, and the frames that are ready for it; nothing here waits for Redis.

A follower first reads the log to its end, and keeps the live frames that arrive meanwhile. Then it takes the live
frames, except those that it has already read from the log. If too many live frames gather, they are dropped, and the
follower reads the log again: memory stays bounded, and no frame is left out.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Final, NamedTuple
from uuid import UUID

from run_frames.log import log_key
from shared_models.frames import Cursor, Frame

MAX_LIVE: Final = 64
MAX_LIVE_BYTES: Final = 8_192
"""Live frames kept for one follower; a burst should fit, because a follower that overflows reads the log again."""
MAX_PAGE: Final = 16
MAX_PAGE_BYTES: Final = 4_096
"""A page of the log, read for one follower; it is kept for as long as the client does not read."""


class RunKey(NamedTuple):
    """The run that a follower reads."""

    tenant: str
    execution_id: UUID


class FollowerState(Enum):
    """Where a follower gets its next frames from.

    `BEHIND` -> `READING_LOG` -> `LIVE`; an overflow of live frames leads back to `BEHIND`, and `ENDED` is final.
    """

    BEHIND = auto()
    """The log must be read; live frames are ignored, because the log holds them."""
    READING_LOG = auto()
    """The log is being read; live frames are kept until its end is reached."""
    LIVE = auto()
    """The log has been read to its end; the next frames are live ones."""
    ENDED = auto()
    """No frame will be added to those that are ready."""


class Follower:
    """A reader of one run.

    Attributes:
        run: the run that it reads.
        cursor: of the last frame that it returned.
        state: where its next frames come from.
        client_waits: whether its client waits for the next frame.
    """

    def __init__(self, tenant: str, execution_id: UUID, after: Cursor) -> None:
        self.run = RunKey(tenant, execution_id)
        self.cursor = after
        self.state = FollowerState.BEHIND
        self.client_waits = False
        self._page: deque[Frame] = deque()
        self._live: deque[Frame] = deque()
        self._live_bytes = 0
        self._changed = asyncio.Event()
        self._last_frame_at = asyncio.get_running_loop().time()

    @property
    def done(self) -> bool:
        """Whether it has ended and has returned all its frames."""
        return self.state is FollowerState.ENDED and not self._page

    @property
    def must_read_log(self) -> bool:
        return self.state in {FollowerState.BEHIND, FollowerState.READING_LOG}

    def start_reading(self) -> None:
        """Keep live frames from now on, because the log is about to be read."""
        if self.state is FollowerState.BEHIND:
            self.state = FollowerState.READING_LOG

    def add_live(self, frame: Frame) -> None:
        """Keep a live frame; if there are too many, drop them all and fall behind."""
        if self.state not in {FollowerState.READING_LOG, FollowerState.LIVE}:
            return
        if len(self._live) < MAX_LIVE and self._live_bytes + len(frame.data) <= MAX_LIVE_BYTES:
            self._live.append(frame)
            self._live_bytes += len(frame.data)
        else:
            self.drop_live()
            self.state = FollowerState.BEHIND
        self._changed.set()

    def add_page(self, page: Sequence[Frame], *, last: bool) -> None:
        """Add a page of the log; the last page makes the follower live, unless it fell behind during the read."""
        self._page.extend(page)
        if last and self.state is FollowerState.READING_LOG:
            self.state = FollowerState.LIVE

    def read_log_again(self) -> None:
        """Return to the log, because it holds frames that did not arrive live."""
        if self.state is FollowerState.LIVE:
            self.state = FollowerState.READING_LOG
        self._changed.set()

    def drop_live(self) -> None:
        """Drop the live frames, because they will be read again."""
        self._live.clear()
        self._live_bytes = 0

    def end(self, frames: Sequence[Frame] = ()) -> None:
        """Make these frames the last ones."""
        self.state = FollowerState.ENDED
        self._page = deque(frames)
        self.drop_live()
        self._changed.set()

    def next_frame(self) -> Frame | None:
        """Return the next frame that is ready, or None."""
        frame = self._page.popleft() if self._page else self._next_live()
        if frame is not None:
            self.cursor = frame.cursor
            self._last_frame_at = asyncio.get_running_loop().time()
        return frame

    async def wait_for_change(self, until: float) -> None:
        """Wait for a frame or another state, until that time of the loop's clock at most."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._changed.wait()

    def silent(self, seconds: float) -> bool:
        """Tell whether the client waits, and got no frame for that many seconds."""
        return self.client_waits and asyncio.get_running_loop().time() - self._last_frame_at >= seconds

    def _next_live(self) -> Frame | None:
        while self._live and self.state is FollowerState.LIVE:
            frame = self._live.popleft()
            self._live_bytes -= len(frame.data)
            if frame.cursor > self.cursor:
                return frame
        return None


def within_page_limit(frames: Sequence[Frame]) -> Sequence[Frame]:
    """Return the first frames that fit into `MAX_PAGE_BYTES` together; at least one."""
    size = 0
    for count, frame in enumerate(frames):
        size += len(frame.data)
        if size > MAX_PAGE_BYTES:
            return frames[: max(1, count)]
    return frames


class FollowedLog:
    """A log that is read once for all its followers.

    Attributes:
        position: the last frame that was read for all of them; None until the first follower has read the log.
    """

    def __init__(self, run: RunKey) -> None:
        self.key = log_key(*run)
        self.position: Cursor | None = None
        self.followers: set[Follower] = set()

    def deliver(self, frames: Sequence[Frame], read_from: str) -> None:
        """Give frames to all followers; if the position moved during the read, the frames are read again instead."""
        if self.position is None or str(self.position) != read_from:
            return
        self.position = frames[-1].cursor
        for frame in frames:
            for follower in self.followers:
                follower.add_live(frame)

    def go_live(self, follower: Follower, log_end: Cursor, position_before: Cursor | None) -> bool:
        """Switch a follower that has read the whole log to live frames; return whether the position has moved.

        Args:
            follower: one of `followers`.
            log_end: the last frame that it found in the log.
            position_before: `position` before it read the log. A log that ends before that position has lost frames,
                and the frames that replace them must be read.
        """
        if position_before is not None and log_end >= position_before:
            return False
        self.position = log_end if self.position is None else min(self.position, log_end)
        follower.drop_live()
        return True

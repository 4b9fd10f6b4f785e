"""One reader's place in one run's log, and what is ready for it. Nothing here waits for Redis.

A follower first reads the log to its end, while live frames are already kept for it; then it lives on those, without
the ones that the log has shown it. If it falls behind they are thrown away, and it goes back to reading the log: so
memory stays bounded, and nothing is left out.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from run_frames.log import log_key
from shared_models.frames import Cursor, Frame

MAX_LIVE: Final = 64
MAX_LIVE_BYTES: Final = 8_192
"""Live frames kept for one follower: what comes at once should fit, for who falls behind has the log read again."""
MAX_PAGE: Final = 16
MAX_PAGE_BYTES: Final = 4_096
"""A page of the log, read for one follower: it stays here for as long as the client does not read."""


class Follower:
    """A reader of one run.

    Attributes:
        run: tenant and execution id.
        cursor: of the last frame it took.
        behind: the log must be read before live frames may be taken.
        listening: live frames are kept.
        wanting: somebody waits for its next frame.
        ended: what it holds is all that it will get.
    """

    def __init__(self, tenant: str, execution_id: UUID, after: Cursor) -> None:
        self.run = (tenant, execution_id)
        self.cursor = after
        self.behind = True
        self.listening = False
        self.wanting = False
        self.ended = False
        self._page: deque[Frame] = deque()
        self._live: deque[Frame] = deque()
        self._live_bytes = 0
        self._news = asyncio.Event()
        self._last_news = asyncio.get_running_loop().time()

    @property
    def done(self) -> bool:
        return self.ended and not self._page

    def push(self, frame: Frame) -> None:
        """Keep a live frame, or see that there are too many of them."""
        if not self.listening:
            return
        if len(self._live) < MAX_LIVE and self._live_bytes + len(frame.data) <= MAX_LIVE_BYTES:
            self._live.append(frame)
            self._live_bytes += len(frame.data)
        else:
            self.forget_live()
            self.listening, self.behind = False, True
        self._news.set()

    def turn(self, page: Sequence[Frame], *, last: bool) -> None:
        """Take up a page of the log; after the last one, live frames may be taken if none was thrown away meanwhile."""
        self._page.extend(page)
        self.behind = not (last and self.listening)

    def read_again(self) -> None:
        """Go back to the log."""
        self.behind = True
        self._news.set()

    def forget_live(self) -> None:
        """Throw the live frames away, because all that came after the log's end comes again."""
        self._live.clear()
        self._live_bytes = 0

    def end(self, frames: Sequence[Frame] = ()) -> None:
        """Let these frames be the rest."""
        self.ended, self.listening, self.behind = True, False, False
        self._page = deque(frames)
        self.forget_live()
        self._news.set()

    def take(self) -> Frame | None:
        """Return the next frame that is ready."""
        frame = self._page.popleft() if self._page else self._take_live()
        if frame is not None:
            self.cursor = frame.cursor
            self._last_news = asyncio.get_running_loop().time()
        return frame

    async def wait(self, until: float) -> None:
        """Wait for news, until that time of the loop's clock at most."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._news.wait()

    def silent(self, seconds: float) -> bool:
        """Tell whether somebody waits for its next frame, and there was none for that long."""
        return self.wanting and asyncio.get_running_loop().time() - self._last_news >= seconds

    def _take_live(self) -> Frame | None:
        while self._live and not self.behind:
            frame = self._live.popleft()
            self._live_bytes -= len(frame.data)
            if frame.cursor > self.cursor:
                return frame
        return None


def fitting(frames: Sequence[Frame]) -> Sequence[Frame]:
    """Return as many of the first frames as may be kept, and always one."""
    room = MAX_PAGE_BYTES
    for place, frame in enumerate(frames):
        room -= len(frame.data)
        if room < 0:
            return frames[: max(1, place)]
    return frames


class Followed:
    """A log that is being read for its followers.

    Attributes:
        position: the last frame read for all of them; None before anybody knows where to begin.
    """

    def __init__(self, run: tuple[str, UUID]) -> None:
        self.key = log_key(*run)
        self.position: Cursor | None = None
        self.followers: set[Follower] = set()

    def deliver(self, frames: Sequence[Frame], read_from: str) -> None:
        """Hand frames to all, unless the position was moved while they were being read: then they come again."""
        if self.position is None or str(self.position) != read_from:
            return
        self.position = frames[-1].cursor
        for frame in frames:
            for follower in self.followers:
                follower.push(frame)

    def join(self, follower: Follower, read_to: Cursor, position: Cursor | None) -> bool:
        """Let a follower that has read the log to its end live on what comes; tell whether the position has moved.

        Args:
            follower: one of these.
            read_to: where it found the end.
            position: as it was before it looked. An end before that means that the log has lost frames, and what comes
                in their place must be read.
        """
        if position is not None and read_to >= position:
            return False
        self.position = read_to if self.position is None else min(self.position, read_to)
        follower.forget_live()
        return True

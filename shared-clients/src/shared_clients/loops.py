"""Background loops: what a service does for ever beside answering, and what happens when such a loop breaks.

A crash is logged with its stack, counted, and followed by a fresh start after a pause that grows; nothing else in a
service catches everything. Loops end with the `Tasks` that own them, so none outlives its process or its test.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Self

import structlog

from shared_clients import metrics
from shared_clients.errors import Transient

log = structlog.get_logger()

MAX_LOOPS: Final = 100
"""Of one `Tasks`; more is a leak, not a design."""
JITTER: Final = 0.1
CANCEL_SECONDS: Final = 5.0
"""How long a cancelled loop may take to tidy up before it is named in the log and left behind."""

type Loop = Callable[[], Awaitable[None]]


class Outcome(Enum):
    """How one life of a loop ended."""

    RETURNED = auto()
    INTERRUPTED = auto()
    CRASHED = auto()


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between the lives of a loop that crashes, in seconds.

    Attributes:
        first: the longest pause after the first crash; it doubles with each further one.
        cap: the longest of all.
        forgiven_after: a loop that lived as long as this starts again from `first`.
    """

    first: float = 0.1
    cap: float = 30.0
    forgiven_after: float = 60.0

    def pause(self, crashes: int) -> float:
        """Return a random pause (between a half and the whole of the bound) after that many crashes in a row."""
        longest = min(self.cap, self.first * 2.0 ** min(crashes - 1, 30))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


class Tasks:
    """The background loops of a process; an async context manager that cancels them all when it is left."""

    def __init__(self, backoff: Backoff = Backoff()) -> None:
        self._backoff = backoff
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exit: object) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks.values(), timeout=CANCEL_SECONDS)
            for task in stuck:
                log.error("loop_left_behind", loop=task.get_name(), waited_seconds=CANCEL_SECONDS)
        self._tasks.clear()

    def start(self, name: str, loop: Loop) -> None:
        """Run a loop until it returns or this context is left, starting it again whenever it crashes.

        Args:
            name: unique here, and known in advance: it labels a metric.
            loop: called for each life.

        Raises:
            ValueError: the name is taken, or there are `MAX_LOOPS` already.
        """
        if name in self._tasks or len(self._tasks) >= MAX_LOOPS:
            msg = f"cannot start the loop {name!r}: there is one already, or there are {MAX_LOOPS}"
            raise ValueError(msg)
        task = asyncio.get_running_loop().create_task(self._keep_alive(name, loop), name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _keep_alive(self, name: str, loop: Loop) -> None:
        clock = asyncio.get_running_loop().time
        crashes = 0
        while True:
            born = clock()
            if await _live(name, loop) is Outcome.RETURNED:
                return
            metrics.LOOP_FAILURES.labels(name).inc()
            crashes = 1 if clock() - born >= self._backoff.forgiven_after else crashes + 1
            await asyncio.sleep(self._backoff.pause(crashes))


async def _live(name: str, loop: Loop) -> Outcome:
    """Live once: an outage is an interruption and needs no stack, anything else is a bug."""
    try:
        await loop()
    except Transient as error:
        log.warning("loop_interrupted", loop=name, error=str(error))
        return Outcome.INTERRUPTED
    except Exception:
        log.exception("loop_crashed", loop=name)
        return Outcome.CRASHED
    return Outcome.RETURNED


def every(seconds: float, work: Callable[[], Awaitable[object]]) -> Loop:
    """Return a loop for `Tasks.start` that does `work`, pauses, and does it again.

    Args:
        seconds: the pause between two turns; each differs by up to `JITTER`, so that replicas do not march in step.
        work: one turn.
    """

    async def turning() -> None:
        while True:
            await work()
            await asyncio.sleep(seconds * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - jitter, no secret

    return turning

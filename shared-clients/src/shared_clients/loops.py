"""Background loops: work that a service repeats for ever, and its restart after a crash.

A crash is logged with its stack, counted, and followed by a restart after a growing pause; no other code of a service
catches every exception. Loops end with the `Tasks` that own them, so none outlives its process or its test.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Self

import structlog

from shared_clients import metrics
from shared_clients.errors import Unconfirmed

log = structlog.get_logger()

MAX_LOOPS: Final = 100
"""Loops of one `Tasks`; more would be a leak."""
JITTER: Final = 0.1
CANCEL_SECONDS: Final = 5.0
"""How long a cancelled loop may take to end; after that, it is logged and no longer awaited."""

type Loop = Callable[[], Awaitable[None]]


class LoopEnd(Enum):
    """How one run of a loop ended."""

    RETURNED = auto()
    INTERRUPTED = auto()
    CRASHED = auto()


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses before the restarts of a loop that crashes, in seconds.

    Attributes:
        first: the longest pause after the first crash; it doubles with each further crash.
        cap: the longest pause after any crash.
        forgiven_after: after a run of this length, the pauses start again from `first`.
    """

    first: float = 0.1
    cap: float = 30.0
    forgiven_after: float = 60.0

    def pause(self, crashes: int) -> float:
        """Return a random pause after that many crashes in a row: from half of the longest pause up to it."""
        longest = min(self.cap, self.first * 2.0 ** min(crashes - 1, 30))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


class Tasks:
    """The background loops of a process; an async context manager that cancels them at its end."""

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
        """Run a loop until it returns or this context ends; restart it after each crash.

        Args:
            name: unique here, and from a fixed set, because it labels a metric.
            loop: called for each run.

        Raises:
            ValueError: a loop of that name runs, or `MAX_LOOPS` loops run.
        """
        if name in self._tasks or len(self._tasks) >= MAX_LOOPS:
            msg = f"cannot start the loop {name!r}: a loop of that name runs already, or {MAX_LOOPS} loops run"
            raise ValueError(msg)
        task = asyncio.get_running_loop().create_task(self._keep_running(name, loop), name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _keep_running(self, name: str, loop: Loop) -> None:
        clock = asyncio.get_running_loop().time
        crashes = 0
        while True:
            started = clock()
            if await _run_once(name, loop) is LoopEnd.RETURNED:
                return
            metrics.LOOP_FAILURES.labels(name).inc()
            crashes = 1 if clock() - started >= self._backoff.forgiven_after else crashes + 1
            await asyncio.sleep(self._backoff.pause(crashes))


async def _run_once(name: str, loop: Loop) -> LoopEnd:
    """Run a loop once; an outage is logged without a stack, and any other exception as a bug."""
    try:
        await loop()
    except Unconfirmed as error:
        log.warning("loop_interrupted", loop=name, error=str(error))
        return LoopEnd.INTERRUPTED
    except Exception:
        log.exception("loop_crashed", loop=name)
        return LoopEnd.CRASHED
    return LoopEnd.RETURNED


def every(seconds: float, work: Callable[[], Awaitable[object]]) -> Loop:
    """Return a loop for `Tasks.start` that repeats `work` with pauses.

    Args:
        seconds: the pause; it varies by the share `JITTER`, so that replicas do not act at the same moment.
        work: called once in each turn.
    """

    async def repeat() -> None:
        while True:
            await work()
            await asyncio.sleep(seconds * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - jitter, no secret

    return repeat

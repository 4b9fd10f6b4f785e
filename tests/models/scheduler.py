"""Who goes next, and what goes wrong: a scheduler that the model checks step through our code with, await by await.

Every place where our code waits for something outside (a statement, a commit, the bus, Redis) is a gate here. One step
opens one gate: its call goes through, is lost before or after it took effect, or its process dies there. What decides
is a string of bytes that Hypothesis draws, so that a failure shrinks and can be played again. Time stands still between
the steps, on the event loop as in the database, until a step moves it.

A dead process cannot be told from one that never runs again: whatever its code still does in memory, every gate refuses
it. The memory of a process is its objects; a machine makes new ones for its successor.
"""

import asyncio
import selectors
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

COUNTED: Final[Counter[str]] = Counter()
"""Steps of each machine in this run of pytest."""
SECONDS: Final[defaultdict[str, float]] = defaultdict(float)
"""Real time that each machine took, with all that Hypothesis and the checks need."""
LULL_SECONDS: Final = 0.003
"""Real time without any answer from outside, after which it is asked who waits for a lock."""
SPINNING: Final = 50_000
"""Turns of the event loop between two gates."""
TICK: Final = 0.3
"""Seconds that a step moves the clock."""


class Crashed(BaseException):
    """This process is dead: nothing that it still does reaches the world."""


class Broken(AssertionError):  # noqa: N818 - what an invariant is then
    """An invariant does not hold."""


def must(holds: object, what: str) -> None:
    if not holds:
        raise Broken(what)


class Fate(Enum):
    """What becomes of a call at its gate."""

    GO = auto()
    LOST = auto()


@dataclass(eq=False)
class Process:
    """One process of a service: what it has in memory dies with it."""

    name: str
    dead: bool = False
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict)

    def refuse_dead(self) -> None:
        if self.dead:
            raise Crashed(self.name)


@dataclass(eq=False)
class Gate:
    """A place where a task waits to be let on."""

    process: Process
    label: str
    may_fail: bool
    opened: asyncio.Future[Fate]


CURRENT: Final[ContextVar[Process]] = ContextVar("process")
ACTING: Final[ContextVar[str]] = ContextVar("acting", default="")
"""What a task acts as, where the model wants to know who made a write."""


class _Lulls(selectors.DefaultSelector):
    """Tells who asks when nothing has come from outside for a moment of real time."""

    def __init__(self) -> None:
        super().__init__()
        self.lull: Callable[[], None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.lull is None:
            return super().select(timeout)
        found = super().select(LULL_SECONDS if timeout is None else min(timeout, LULL_SECONDS))
        if not found and timeout != 0:
            self.lull()
        return found


class FrozenLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves only when it is told to."""

    def __init__(self) -> None:
        self.selector = _Lulls()
        self._moment = 1_000.0
        super().__init__(self.selector)
        self.set_task_factory(_in_its_process)

    def time(self) -> float:
        return self._moment

    def advance(self, seconds: float) -> None:
        """Move the clock, and never to just before a timer: the loop would call it early, again and again."""
        self._moment += seconds
        while (due := self.next_timer()) is not None and 0 < due < 1e-6:
            self._moment += 2e-6

    def next_timer(self) -> float | None:
        """Return in how many seconds a timer is due."""
        due = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]  # asyncio's own
        ahead = [when - self._moment for when in due if when > self._moment]
        return min(ahead) if ahead else None

    @property
    def busy(self) -> bool:
        return bool(self._ready)  # type: ignore[attr-defined]  # asyncio's own

    async def quiet(self) -> None:
        """Let everything run that waits for nothing."""
        for _ in range(SPINNING):
            await asyncio.sleep(0)
            if not self.busy:
                return
        raise Broken("something goes on and on without waiting for anything")


def _in_its_process(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    process = context.get(CURRENT) if context is not None else CURRENT.get(None)
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(lambda done: process.tasks.pop(done, None))
    return task


class Outside:
    """What answers in real time (a database): the scheduler waits for it, but not for who waits for a lock there."""

    async def settled(self) -> None:
        """Return when every call in flight has been answered, or cannot be before somebody else goes on."""

    async def bury(self, process: Process) -> None:
        """Let go of what a dead process held, as closing its sockets does."""


class Scheduler:
    """Steps the tasks of some processes.

    Args:
        name: of the machine, under which its steps are counted.
        loop: this thread's.
        outside: what answers in real time, if anything does.
    """

    def __init__(self, name: str, loop: FrozenLoop, outside: Outside | None = None) -> None:
        self.name = name
        self.loop = loop
        self.on_tick: Callable[[float], None] = lambda _: None
        self.faults = True
        self.hung: set[Process] = set()
        self.trail: list[str] = []
        self._outside = outside or Outside()
        self._gates: list[Gate] = []
        self._raised: list[BaseException] = []

    async def gate(self, label: str, *, may_fail: bool = True) -> Fate:
        """Wait to be let on; called by the seams, from inside our code's awaits."""
        process = CURRENT.get()
        process.refuse_dead()
        gate = Gate(process, label, may_fail, self.loop.create_future())
        self._gates.append(gate)
        try:
            fate = await gate.opened
        finally:
            self._gates.remove(gate)
        process.refuse_dead()
        return fate

    def spawn(self, process: Process, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        """Start a task of a process; what it raises and does not handle breaks the model."""
        context = copy_context()
        context.run(CURRENT.set, process)
        task: asyncio.Task[object] = self.loop.create_task(work, context=context)
        task.add_done_callback(self._ended)
        return task

    async def play(self, choices: bytes) -> None:
        """Make a step for each two bytes: who goes next, and what becomes of it."""
        for who, how in zip(choices[::2], choices[1::2], strict=False):
            if self._idle:
                return
            await self._step(who, how)

    async def settle(self) -> None:
        """Let everything run up to its next gate."""
        while True:
            await self.loop.quiet()
            await self._outside.settled()
            if not self.loop.busy:
                break
        if self._raised:
            raise self._raised.pop()

    async def tick(self, seconds: float) -> None:
        """Let time pass, in the database and for timers."""
        COUNTED[self.name] += 1
        self.trail.append(f"{seconds:g} s pass")
        self.loop.advance(seconds)
        self.on_tick(seconds)
        await asyncio.sleep(0)
        await self.settle()

    def see(self, holds: object, what: str) -> None:
        """Note what must hold, from inside of work that would swallow an error."""
        if not holds:
            self._raised.append(Broken(what))

    async def kill(self, process: Process) -> None:
        """End a process in the middle of whatever it does."""
        process.dead = True
        await self._outside.bury(process)
        for gate in self._gates:
            if gate.process is process and not gate.opened.done():
                gate.opened.set_exception(Crashed(process.name))
        while process.tasks:
            for task in list(process.tasks):
                task.cancel()
            await asyncio.sleep(0)
        await self.settle()

    async def quieten(self, most: int = 5_000) -> None:
        """Let all go on without faults, in turn, until nobody waits at a gate."""
        self.faults = False
        await self.settle()
        for _ in range(most):
            if not self._gates:
                self.faults = True
                return
            await self._open(self._gates[0], Fate.GO)
        raise Broken(f"still going on after {most} steps without faults: {[gate.label for gate in self._gates]}")

    @property
    def _idle(self) -> bool:
        """Whether only a new rule gets anything going again: no step is counted that could not change anything."""
        return not self._gates and self.loop.next_timer() is None

    async def _step(self, who: int, how: int) -> None:
        gates = [gate for gate in self._gates if gate.process not in self.hung]
        if who >= 240 or not gates:
            await self.tick(TICK)
            return
        gate = gates[who % len(gates)]
        if how >= 250 and self.faults:
            COUNTED[self.name] += 1
            self.trail.append(f"{gate.process.name} dies at {gate.label}")
            await self.kill(gate.process)
        else:
            await self._open(gate, Fate.LOST if how >= 232 and gate.may_fail and self.faults else Fate.GO)

    async def _open(self, gate: Gate, fate: Fate) -> None:
        COUNTED[self.name] += 1
        self.trail.append(f"{gate.process.name}: {gate.label} {fate.name.lower()}")
        if not gate.opened.done():
            gate.opened.set_result(fate)
        await asyncio.sleep(0)
        await self.settle()

    def _ended(self, task: asyncio.Task[object]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Crashed):
            self._raised.append(error)


def summary() -> Sequence[str]:
    """Return a line for each machine: its steps, and how many it made in a second."""
    return [
        f"{name}: {steps} steps in {SECONDS[name]:.1f} s ({steps / max(SECONDS[name], 0.001):.0f}/s)"
        for name, steps in sorted(COUNTED.items())
    ]

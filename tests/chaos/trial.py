"""One scenario being played: its ground, its users, its history, and what it breaks."""

import asyncio
import os
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Final

from tests.chaos.checking import Fault, Finding
from tests.chaos.conversations import converse, probe
from tests.chaos.ground import Ground, until
from tests.chaos.history import History, Kind, new
from tests.chaos.users import Question, User
from tests.client import Client

TOLERANCE: Final = 3.0
"""How many times a goal in seconds may be exceeded before that is a failure; the goal is printed beside the figure."""
MOST_CONVERSATIONS: Final = 2_000


@dataclass
class Trial:
    """What a scenario is given.

    Attributes:
        label: in every question, so that one scenario's are told from another's.
        short: the form for a test; the full one breaks more often.
        few: of many places of the short form, some drawn by the seed are enough.
        notes: printed under the scenario's line.
        findings: what the scenario itself found wrong.
    """

    ground: Ground
    client: Client
    history: History
    label: str
    seed: int
    short: bool
    few: bool = False
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    _questions: int = 0
    _probes: set[asyncio.Task[None]] = field(default_factory=set)
    _armed: dict[StrEnum, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def user(self) -> User:
        return User(self.client, self.history, random.Random(self.chance.random()))

    def question(self, *, token_ms: int = 10, words: int = 12, tool: bool = False) -> Question:
        """Make up a question that nobody has asked before; its answer takes `words` tokens."""
        self._questions += 1
        if tool:
            return Question(f"[sim tool=calculator token_ms={token_ms}] {self.label}-{self._questions}")
        content = f"[sim token_ms={token_ms}] {self.label}-{self._questions} " + " ".join(["and"] * max(0, words - 5))
        return Question(content.strip(), f"You said: {content.strip()}")

    async def fault(self, what: str) -> None:
        """Note that something breaks now, and have somebody ask something new to see when that works again."""
        await self.history.end(replace(new(Kind.FAULT), said=what))
        probing = asyncio.create_task(probe(self.user(), self.question(token_ms=0, words=6)))
        self._probes.add(probing)
        probing.add_done_callback(self._probes.discard)

    async def kill(self, name: str) -> None:
        """Kill -9 a process of the fleet, which is then started again."""
        self.ground.signal(name, signal.SIGKILL)
        await self.fault(f"kill -9 {name}")

    async def die_at(self, place: StrEnum, service: str, seconds: float = 30.0) -> None:
        """Have the next process of a service that reaches a place die there; wait until it is up again.

        Raises:
            AssertionError: none has reached it, or it did not come up.
        """
        before = self.ground.pids(service)

        async def is_reborn() -> bool:
            return self.ground.pids(service) != before

        async with self._armed[place]:  # a file is for one service at a time
            await fire(self.ground.failpoints / place, service, seconds)
        await self.fault(f"{service} died {place}")
        await until(f"{service} is started again", is_reborn, seconds, 0.02)
        await self.ground.up(*self.ground.names(service))

    async def kill_and_await(self, name: str) -> None:
        """Kill -9 a process and wait until it serves again."""
        pid = self.ground.fleet.pid(name)
        await self.kill(name)
        await self.ground.reborn(name, pid)

    def clock(self) -> float:
        return monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def seconds(self, work: Awaitable[object]) -> float:
        """Return how long something takes."""
        began = monotonic()
        await work
        return monotonic() - began

    def measure(self, what: str, seconds: float, goal: float) -> None:
        """Note a figure, and hold it against its goal; the short form, beside which other tests run, only notes it."""
        self.notes.append(f"{what}: {seconds:.2f} s (goal {goal:g} s)")
        if not self.short and too_long(seconds, goal):
            self.findings.append(Finding(Fault.GOAL, "", self.notes[-1]))

    def expect(self, holds: bool, what: str) -> None:
        """Note a finding unless something holds."""
        if not holds:
            self.findings.append(Finding(Fault.GOAL, "", what))

    async def until(self, what: str, look: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> float:
        return await until(what, look, seconds)

    @asynccontextmanager
    async def crowd(self, people: int = 6, *, most: int = MOST_CONVERSATIONS) -> AsyncIterator[None]:
        """Have people talk while the block goes on; at its end each finishes what it is talking about."""
        over = asyncio.Event()
        left = iter(range(most))

        async def talk_on(user: User) -> None:
            while not over.is_set() and next(left, None) is not None:
                await converse(user, self.question)
                await asyncio.sleep(user.chance.uniform(0.0, 0.2))

        async with asyncio.TaskGroup() as talking:
            for _ in range(people):
                talking.create_task(talk_on(self.user()))
            try:
                yield
            finally:
                over.set()
        await self.settled_probes()

    async def settled_probes(self) -> None:
        if self._probes:
            await asyncio.gather(*self._probes)


def lay(file: Path, text: str) -> None:
    """Write a file so that nobody sees a half of it."""
    whole = file.with_suffix(".new")
    whole.write_text(text)
    whole.rename(file)


def is_laid(file: Path) -> bool:
    return file.exists()


def take_away(file: Path) -> None:
    file.unlink(missing_ok=True)


async def fire(file: Path, service: str, seconds: float) -> None:
    """Lay the file of a failpoint for a service, and wait until somebody has died of it."""

    async def has_fired() -> bool:
        return not is_laid(file)

    lay(file, service)
    try:
        await until(f"{service} reaches {file.name}", has_fired, seconds, 0.005)
    finally:
        take_away(file)


def too_long(seconds: float, goal: float) -> bool:
    """Hold a figure against its goal with tolerance, and the more so, the more others want of this machine."""
    return seconds > goal * TOLERANCE * crowdedness()


def crowdedness() -> float:
    """Return how many want each processor of this machine, at least one."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))

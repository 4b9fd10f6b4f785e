"""Background loops: they come back after a crash, they do not march in step, and none outlives its owner."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import REGISTRY

from shared_clients.errors import Transient
from shared_clients.loops import Backoff, Tasks, every

QUICK = Backoff(first=0.001, cap=0.002)
SECRETLESS = "the reason"


class Loop:
    """A loop whose lives end one after the other as told, and which then waits for ever."""

    def __init__(self, *ends: Exception) -> None:
        self.ends = list(ends)
        self.lives = 0
        self.settled = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self) -> None:
        self.lives += 1
        if self.ends:
            raise self.ends.pop(0)
        self.settled.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


def failures(loop: str) -> float:
    return REGISTRY.get_sample_value("flotilla_loop_failures_total", {"loop": loop}) or 0.0


async def within[T](work: Awaitable[T]) -> T:
    async with asyncio.timeout(5):
        return await work


async def test_a_crashed_loop_is_logged_counted_and_started_again(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop(RuntimeError(SECRETLESS), Transient("no database"), ValueError(SECRETLESS))
    async with Tasks(QUICK) as tasks:
        tasks.start("crashing", loop)
        await within(loop.settled.wait())
    assert loop.lives == 4
    assert failures("crashing") == 3
    logged = capsys.readouterr().out
    assert logged.count("Traceback") == 2
    assert "no database" in logged


async def test_a_loop_that_returns_is_done() -> None:
    returned = asyncio.Event()
    lives = 0

    async def loop() -> None:
        nonlocal lives
        lives += 1
        returned.set()

    async with Tasks(QUICK) as tasks:
        tasks.start("returning", loop)
        await within(returned.wait())
    assert lives == 1
    assert failures("returning") == 0


async def test_leaving_cancels_every_loop_and_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    loops = [Loop() for _ in range(20)]
    crashing = Loop(*(RuntimeError(str(n)) for n in range(1000)))
    async with Tasks(Backoff(first=60)) as tasks:
        for number, loop in enumerate(loops):
            tasks.start(f"loop-{number}", loop)
        tasks.start("pausing after a crash", crashing)
        for loop in loops:
            await within(loop.settled.wait())
    assert asyncio.all_tasks() == before
    assert all(loop.cancelled.is_set() for loop in loops)


async def test_an_error_of_the_owner_cancels_the_loops_and_rises() -> None:
    loop = Loop()
    before = asyncio.all_tasks()

    async def own() -> None:
        async with Tasks() as tasks:
            tasks.start("owned", loop)
            await within(loop.settled.wait())
            raise RuntimeError(SECRETLESS)

    with pytest.raises(RuntimeError, match=SECRETLESS):
        await own()
    assert loop.cancelled.is_set()
    assert asyncio.all_tasks() == before


async def test_the_same_name_twice_is_refused() -> None:
    async with Tasks() as tasks:
        tasks.start("only", Loop())
        with pytest.raises(ValueError, match="'only'"):
            tasks.start("only", Loop())


async def test_the_number_of_loops_is_bounded() -> None:
    async with Tasks() as tasks:
        for number in range(100):
            tasks.start(str(number), Loop())
        with pytest.raises(ValueError, match="100"):
            tasks.start("one too many", Loop())


def test_pauses_double_up_to_the_cap_and_differ() -> None:
    backoff = Backoff(first=0.1, cap=30)
    for crashes in range(1, 2000):
        longest = min(30.0, 0.1 * 2.0 ** min(crashes - 1, 30))
        assert longest / 2 <= backoff.pause(crashes) <= longest
    assert len({backoff.pause(20) for _ in range(20)}) > 10


async def test_a_loop_that_lived_long_is_forgiven() -> None:
    pauses: list[int] = []

    class Watched(Backoff):
        def pause(self, crashes: int) -> float:
            pauses.append(crashes)
            return 0

    loop = Loop(*(RuntimeError(str(n)) for n in range(4)))
    async with Tasks(Watched(reset_after=0)) as tasks:
        tasks.start("long-lived", loop)
        await within(loop.settled.wait())
    assert pauses == [1, 1, 1, 1]


def turns(count: int) -> tuple[Callable[[], Awaitable[None]], asyncio.Event]:
    """Return work that reports its `count`-th turn."""
    done = asyncio.Event()
    left = count

    async def work() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()

    return work, done


async def test_every_repeats_its_work() -> None:
    work, done = turns(5)
    async with Tasks() as tasks:
        tasks.start("repeating", every(0.001, work))
        await within(done.wait())


async def test_every_survives_a_turn_that_fails() -> None:
    crashing = iter([RuntimeError("first turn")])
    work, done = turns(3)

    async def sometimes() -> None:
        if error := next(crashing, None):
            raise error
        await work()

    async with Tasks(QUICK) as tasks:
        tasks.start("sometimes", every(0.001, sometimes))
        await within(done.wait())
    assert failures("sometimes") == 1

"""F6: Redis dies, comes back empty, hangs, and is full: live text suffers, answers do not."""

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial

ROUNDS: Final = 3
HANGS_SECONDS: Final = 4.0
FULL_SECONDS: Final = 3.0


async def break_redis(trial: Trial) -> None:
    ways: tuple[Callable[[Trial], Awaitable[None]], ...] = (_kill, _kill_and_empty, _hang, _fill)
    async with trial.crowd():
        for _ in range(1 if trial.short else ROUNDS):
            for way in ways:
                await trial.sleep(trial.chance.uniform(0.5, 1.0))
                await way(trial)


async def _kill(trial: Trial) -> None:
    await trial.ground.stores["redis"].kill()
    await trial.fault("kill -9 redis")
    await trial.ground.stores["redis"].restart()


async def _kill_and_empty(trial: Trial) -> None:
    async with Redis.from_url(trial.ground.stores["redis"].url, protocol=2) as redis:
        folder = Path(str((await redis.config_get("dir"))["dir"]))
    await trial.ground.stores["redis"].kill()
    for file in (folder / "appendonlydir").iterdir():
        file.unlink()
    await trial.fault("kill -9 redis, which comes back empty")
    await trial.ground.stores["redis"].restart()


async def _hang(trial: Trial) -> None:
    trial.ground.signal("redis", signal.SIGSTOP)
    try:
        await trial.fault("SIGSTOP redis")
        await trial.sleep(HANGS_SECONDS)
    finally:
        trial.ground.signal("redis", signal.SIGCONT)


async def _fill(trial: Trial) -> None:
    async with Redis.from_url(trial.ground.stores["redis"].url, protocol=2) as redis:
        await redis.config_set("maxmemory", 1)
        try:
            await trial.fault("redis has no memory left")
            await trial.sleep(FULL_SECONDS)
        finally:
            await redis.config_set("maxmemory", 0)


SCENARIO = Scenario(
    name="F6",
    title="Redis killed, emptied, paused, full",
    frames_lost=True,
    play=break_redis,
    first_ok=1.0,
    recovered=10.0,
    full_seconds=240.0,
)

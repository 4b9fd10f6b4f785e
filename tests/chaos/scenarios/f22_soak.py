"""F22: a long day in short: people talk on, something breaks every half minute, and nothing grows."""

import signal
from dataclasses import dataclass
from itertools import cycle
from statistics import linear_regression, median_low
from typing import Final

import psutil

from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial

SECONDS: Final = 600.0
SHORT_SECONDS: Final = 12.0
EVERY: Final = 30.0
SHORT_EVERY: Final = 4.0
SAMPLE_SECONDS: Final = 5.0
WARM: Final = 0.4
"""The part of the time in which caches and pools fill: growth is measured after it."""
MEBIBYTE: Final = 2**20
GROWTH: Final = 120.0
"""MiB an hour above which a process leaks for sure; the goal of 1 cannot be told from noise in ten minutes."""


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    resident: float
    files: int


async def soak(trial: Trial) -> None:
    """Break the second replicas and the stores; the first replicas live all along, and are measured."""
    lasts, every = (SHORT_SECONDS, SHORT_EVERY) if trial.short else (SECONDS, EVERY)
    watched = {name: pid for name, pid in trial.ground.pids("").items() if name.endswith("-1")}
    samples: dict[str, list[Sample]] = {name: [] for name in watched}
    breaking = cycle([*(name for name in trial.ground.names() if name not in watched), "redis", "kafka", "postgres"])
    began = trial.clock()
    broken = began
    async with trial.crowd(3):
        while trial.clock() - began < lasts:
            await trial.sleep(min(SAMPLE_SECONDS, every))
            for name, pid in watched.items():
                samples[name].append(_sample(trial, pid))
            if trial.clock() - broken >= every:
                broken = trial.clock()
                await _break(trial, next(breaking))
    trial.expect(
        watched.items() <= trial.ground.pids("").items(), "a process that nobody broke has died; its log says why"
    )
    if not trial.short:
        _judge(trial, samples)


async def _break(trial: Trial, name: str) -> None:
    if name in trial.ground.stores:
        await trial.ground.stores[name].kill()
        await trial.fault(f"kill -9 {name}")
        await trial.ground.stores[name].restart()
    else:
        trial.ground.signal(name, trial.chance.choice([signal.SIGKILL, signal.SIGTERM]))
        await trial.fault(f"end of {name}")
    await trial.sleep(1.0)
    await trial.ground.up()


def _sample(trial: Trial, pid: int) -> Sample:
    process = psutil.Process(pid)
    return Sample(trial.clock(), process.memory_info().rss / MEBIBYTE, process.num_fds())


def _judge(trial: Trial, samples: dict[str, list[Sample]]) -> None:
    for name, all_of_them in samples.items():
        warm = all_of_them[round(len(all_of_them) * WARM) :]
        growth = linear_regression([one.at / 3600 for one in warm], [one.resident for one in warm]).slope
        files = median_low([one.files for one in warm[-10:]]) - median_low([one.files for one in warm[:10]])
        trial.notes.append(f"{name}: {warm[-1].resident:.0f} MiB, {growth:+.0f} MiB/h (goal 1), {files:+d} open files")
        trial.expect(growth < GROWTH, f"{trial.notes[-1]}; expected less than {GROWTH:g} MiB/h")
        trial.expect(files <= 10, f"{trial.notes[-1]}; expected none more")


SCENARIO = Scenario(
    name="F22",
    title="ten minutes of talk with a fault every half minute",
    play=soak,
    frames_lost=True,
    short_seconds=120.0,
    full_seconds=900.0,
)

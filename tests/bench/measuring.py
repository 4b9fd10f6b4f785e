"""How figures are taken: two things in one run, in turn and in random order, told as the ratio of each round.

Both run on the same noisy cores at the same time, so what disturbs one disturbs the other; the median of many rounds'
ratios, with a bootstrap interval, is what can be repeated. Absolute times are printed beside it and are nobody's goal.
"""

import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from pydantic_core import to_json

ROUNDS: Final = 40
WARM_UP: Final = 5
RESAMPLES: Final = 2000

Sample = Callable[[], Awaitable[float]]
"""Takes one measurement, in seconds."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of `build/bench.json`.

    Attributes:
        id: of the performance plan.
        what: measured.
        ratio: the median of the rounds' ratios, ours to the baseline's.
        low: of the 95 % interval of that median.
        high: of it.
        baseline: what ours is divided by.
        n: measurements of each.
        ours: the median of ours, in `unit`.
        theirs: the median of the baseline, in `unit`.
        unit: of the two.
        goal: the ratio aimed at, where there is one.
        split: parts of ours by process, where it has several.
    """

    id: str
    what: str
    ratio: float
    low: float
    high: float
    baseline: str
    n: int
    ours: float
    theirs: float
    unit: str = "ms"
    goal: float | None = None
    split: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        goal = "" if self.goal is None else f"  (goal <= {self.goal:g}{'' if self.high <= self.goal else ', missed'})"
        split = "".join(f"\n{'':34}{part}: {value:.1f} {self.unit}" for part, value in self.split.items())
        return (
            f"{self.id:<6}{self.ratio:6.2f}x  [{self.low:.2f}, {self.high:.2f}]{goal}  {self.what}: "
            f"{self.ours:.2f} against {self.theirs:.2f} {self.unit} of {self.baseline}, n={self.n}{split}"
        )


async def in_turn(ours: Sample, theirs: Sample, *, rounds: int = ROUNDS, each: int = 10) -> list[tuple[float, float]]:
    """Return the medians (ours, theirs) of each round; the first rounds are dropped.

    Args:
        ours: takes one measurement of ours.
        theirs: takes one of the baseline.
        rounds: that count.
        each: measurements of either in a round.
    """
    found: list[tuple[float, float]] = []
    for number in range(WARM_UP + rounds):
        taken: dict[Sample, list[float]] = {ours: [], theirs: []}
        order = [ours, theirs] * each
        random.shuffle(order)
        for sample in order:
            taken[sample].append(await sample())
        if number >= WARM_UP:
            found.append((statistics.median(taken[ours]), statistics.median(taken[theirs])))
    return found


@dataclass(frozen=True, slots=True)
class Told:
    """What a figure is about; see `Figure`."""

    id: str
    what: str
    baseline: str
    unit: str = "ms"
    scale: float = 1000.0
    goal: float | None = None


def figure(
    told: Told, pairs: Sequence[tuple[float, float]], *, each: int, split: dict[str, float] | None = None
) -> Figure:
    """Make a figure of rounds' pairs (ours, theirs), in seconds."""
    ratios = [ours / theirs for ours, theirs in pairs]
    low, high = interval(ratios)
    return Figure(
        id=told.id,
        what=told.what,
        ratio=round(statistics.median(ratios), 3),
        low=round(low, 3),
        high=round(high, 3),
        baseline=told.baseline,
        n=len(pairs) * each,
        ours=round(statistics.median(ours for ours, _ in pairs) * told.scale, 3),
        theirs=round(statistics.median(theirs for _, theirs in pairs) * told.scale, 3),
        unit=told.unit,
        goal=told.goal,
        split=split or {},
    )


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of the median."""
    chance = random.Random(7)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975)]


def spin() -> float:
    """Return how long a fixed piece of work takes, in seconds: the machine's speed at this moment."""
    began = time.perf_counter()
    total = 0
    for number in range(2_000_000):
        total += number & 7
    assert total
    return time.perf_counter() - began


def dump(figures: Sequence[Figure]) -> bytes:
    return to_json([asdict(one) for one in figures], indent=2)

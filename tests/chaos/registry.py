"""The scenarios, found by their files: each module in `scenarios/` says `SCENARIO = Scenario(...)`."""

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.ground import Shape
from tests.chaos.trial import Trial

FOLDER: Final = Path(__file__).parent / "scenarios"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way of breaking things, and what has to hold all the same.

    Attributes:
        name: F1, F2, …
        title: the fault, in a few words.
        play: breaks things while people talk. What it notes with `trial.fault` is measured.
        first_ok: goal in seconds from a fault to the first new acceptance, at the 99th percentile.
        recovered: goal in seconds from a fault to the end of the last request that it stranded, likewise; the time
            that an answer takes is in it.
        shape: of the fleet.
        short_seconds, full_seconds: after which it is broken off, and has failed.
        failures: requests may end without an answer, with notice.
        frames_lost: it breaks Redis, so a stream may have a resync, and an end that its log has not.
        needs_root: nobody else may make what it breaks.
    """

    name: str
    title: str
    play: Callable[[Trial], Awaitable[None]]
    first_ok: float | None = None
    recovered: float | None = None
    shape: Shape = field(default_factory=Shape)
    short_seconds: float = 90.0
    full_seconds: float = 600.0
    failures: bool = False
    frames_lost: bool = False
    needs_root: bool = False


def scenarios() -> Mapping[str, Scenario]:
    """Return all scenarios by name, in the order of their numbers."""
    found: list[Scenario] = [
        importlib.import_module(f"tests.chaos.scenarios.{file.stem}").SCENARIO for file in sorted(FOLDER.glob("f*.py"))
    ]
    names = [scenario.name for scenario in found]
    if len(set(names)) != len(names):
        msg = f"two scenarios have one name: {names}"
        raise ValueError(msg)
    return {scenario.name: scenario for scenario in sorted(found, key=lambda one: int(one.name[1:]))}

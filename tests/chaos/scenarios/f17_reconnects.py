"""F17: readers whose connection is cut at every frame, and a thousand that come back in one moment."""

import asyncio
from typing import Final

from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial
from tests.chaos.users import Kept

RUNS: Final = 10
STORM: Final = 1_000


async def reconnect(trial: Trial) -> None:
    for _ in range(1 if trial.short else RUNS):
        await asyncio.gather(*(_read_in_pieces(trial, frames) for frames in (1, 2, 7)))
    await _storm(trial)


async def _read_in_pieces(trial: Trial, frames: int) -> None:
    """Read a run as it comes and again when it is over, leaving after so many frames each time."""
    user = trial.user()
    accepted = await user.ask(trial.question(token_ms=30, words=40))
    if accepted is None:
        return
    await user.follow(accepted, Kept(most=frames))
    await user.follow(accepted, Kept(most=frames))


async def _storm(trial: Trial) -> None:
    """Have everybody read one run, lose everybody's connection at once, and come back at once."""
    readers = 100 if trial.short else STORM
    accepted = await trial.user().ask(trial.question(token_ms=100, words=60))
    if accepted is None:
        return
    seen = [Kept(most=3) for _ in range(readers)]
    took = await trial.seconds(asyncio.gather(*(trial.user().follow(accepted, kept) for kept in seen)))
    trial.notes.append(f"{readers} readers of one run, cut every 3 frames: all had all of it after {took:.1f} s")


SCENARIO = Scenario(
    name="F17",
    title="streams cut at every frame, and everybody back at once",
    play=reconnect,
    short_seconds=120.0,
)

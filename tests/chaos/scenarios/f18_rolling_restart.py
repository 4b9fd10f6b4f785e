"""F18: every process is restarted in turn, as an upgrade does it, while people go on talking."""

import signal
from typing import Final

from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial

ROUNDS: Final = 3
TRIES: Final = """
    SELECT count(*) FROM agent_service.runs WHERE tries > 1 AND content LIKE '%' || $1 || '-%'
"""


async def roll(trial: Trial) -> None:
    async with trial.crowd():
        for _ in range(1 if trial.short else ROUNDS):
            for name in _chosen(trial):
                await _restart(trial, name)
    async with trial.ground.database() as database:
        again = await database.fetchval(TRIES, trial.label)
    trial.expect(
        again == 0, f"{again} runs have used up tries; expected a drained worker to hand them back for nothing"
    )


def _chosen(trial: Trial) -> list[str]:
    """Return everybody, in the short form one of each service."""
    return [name for name in trial.ground.names() if not trial.short or name.endswith("-1")]


async def _restart(trial: Trial, name: str) -> None:
    """Ask a process to go, and go on when its successor serves."""
    pid = trial.ground.pids(name)[name]

    async def has_a_successor() -> bool:
        return trial.ground.pids(name)[name] != pid

    began = trial.clock()
    trial.ground.signal(name, signal.SIGTERM)
    await trial.fault(f"SIGTERM {name}")
    await trial.until(f"{name} has a successor", has_a_successor)
    trial.measure(f"{name} had gone and been started again", trial.clock() - began, 10.0)
    await trial.ground.up(name)


SCENARIO = Scenario(
    name="F18",
    title="rolling restart of every process",
    play=roll,
    first_ok=2.0,
    recovered=5.0,
    short_seconds=180.0,
)

"""F3: a worker is paused for twice its lease and wakes up as a zombie: nothing of what it still writes may count."""

import signal
from typing import Final

from durable_work.jobs.leases import LEASE_SECONDS
from tests.chaos.registry import Scenario
from tests.chaos.takeovers import Takeovers
from tests.chaos.trial import Trial

PAUSES: Final = 10


async def pause_workers(trial: Trial) -> None:
    takeovers = Takeovers(trial)
    async with trial.crowd():
        for _ in range(1 if trial.short else PAUSES):
            await trial.sleep(trial.chance.uniform(0.5, 1.5))
            await _pause(trial, takeovers, trial.chance.choice(trial.ground.names("agent-service")))
            await trial.ground.up()
    takeovers.report()


async def _pause(trial: Trial, takeovers: Takeovers, name: str) -> None:
    async def strike() -> None:
        trial.ground.signal(name, signal.SIGSTOP)
        await trial.fault(f"SIGSTOP {name}")

    began = trial.clock()
    try:
        await takeovers.watch(name, strike)
        await trial.sleep(max(0.0, 2 * LEASE_SECONDS - (trial.clock() - began)))
    finally:
        trial.ground.signal(name, signal.SIGCONT)


SCENARIO = Scenario(
    name="F3",
    title="SIGSTOP of agent-service for two leases, then SIGCONT",
    play=pause_workers,
    full_seconds=240.0,
)

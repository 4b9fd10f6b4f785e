"""F2: kill -9 of processes at random moments, every service again and again, side by side."""

import asyncio
from functools import partial
from typing import Final

from tests.chaos.registry import Scenario
from tests.chaos.takeovers import Takeovers
from tests.chaos.trial import Trial

SERVICES: Final = ("agent-service", "api-gateway", "request-manager")
KILLS: Final = 50
"""Of each service in the full form."""
FULL_SECONDS: Final = 360.0
"""After which it ends with the kills that it had; how many is in the report."""


async def kill_at_random(trial: Trial) -> None:
    takeovers = Takeovers(trial)
    async with trial.crowd():
        kills = await asyncio.gather(*(_keep_killing(trial, service, takeovers) for service in SERVICES))
    takeovers.report()
    trial.notes.append("kills: " + ", ".join(f"{name} {count}" for name, count in zip(SERVICES, kills, strict=True)))


async def _keep_killing(trial: Trial, service: str, takeovers: Takeovers) -> int:
    """Kill one replica after the other, each when the one before is up again, and return how often."""
    began = trial.clock()
    for count in range(1 if trial.short else KILLS):
        if trial.clock() - began > FULL_SECONDS:
            return count
        await trial.sleep(trial.chance.uniform(0.2, 1.5))
        name = trial.chance.choice(trial.ground.names(service))
        if service == "agent-service":
            pid = trial.ground.fleet.pid(name)
            await takeovers.watch(name, partial(trial.kill, name))
            await trial.ground.reborn(name, pid)
        else:
            await trial.kill_and_await(name)
    return 1 if trial.short else KILLS


SCENARIO = Scenario(
    name="F2",
    title="kill -9 of every service at random moments",
    play=kill_at_random,
    first_ok=2.0,
    recovered=8.0,
    full_seconds=600.0,
)

"""F7: all stores die within a second, and come back."""

import asyncio
from typing import Final

from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial

ROUNDS: Final = 5
RECOVERED_SECONDS: Final = 15.0


async def kill_all_stores(trial: Trial) -> None:
    stores = list(trial.ground.stores)
    async with trial.crowd():
        for _ in range(1 if trial.short else ROUNDS):
            await trial.sleep(trial.chance.uniform(0.5, 1.5))
            for name in trial.chance.sample(stores, len(stores)):
                await trial.ground.stores[name].kill()
            await trial.fault("kill -9 postgres, kafka and redis")
            began = trial.clock()
            await asyncio.gather(*(trial.ground.stores[name].restart() for name in stores))
            trial.notes.append(f"the stores were up again after {trial.clock() - began:.1f} s")
            await trial.ground.up()


SCENARIO = Scenario(
    name="F7",
    title="kill -9 of Postgres, Kafka and Redis within a second",
    frames_lost=True,
    play=kill_all_stores,
    first_ok=RECOVERED_SECONDS,
    recovered=RECOVERED_SECONDS,
    full_seconds=300.0,
)

"""F4: kill -9 of the whole database, and of one of its backends, which has it restart as well."""

import os
import signal
from typing import Final

from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial

ROUNDS: Final = 10
BACKEND: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name LIKE 'flotilla-%' ORDER BY random() LIMIT 1
"""


async def kill_postgres(trial: Trial) -> None:
    async with trial.crowd():
        for _ in range(1 if trial.short else ROUNDS):
            await trial.sleep(trial.chance.uniform(0.5, 1.5))
            await _kill_server(trial)
            await trial.sleep(trial.chance.uniform(0.5, 1.5))
            await _kill_backend(trial)


async def _kill_server(trial: Trial) -> None:
    await trial.ground.stores["postgres"].kill()
    await trial.fault("kill -9 postgres")
    await trial.ground.stores["postgres"].restart()
    trial.measure("all serve after the server is up again", await trial.seconds(trial.ground.up()), 3.0)


async def _kill_backend(trial: Trial) -> None:
    async with trial.ground.database() as database:
        pid = await database.fetchval(BACKEND)
    if pid is None:
        return
    os.kill(pid, signal.SIGKILL)
    await trial.fault("kill -9 of a database backend")

    async with trial.ground.database():  # it has recovered
        pass
    trial.measure("all serve after a backend was killed", await trial.seconds(trial.ground.up()), 1.0)


SCENARIO = Scenario(
    name="F4",
    title="kill -9 of Postgres, and of one backend",
    play=kill_postgres,
    recovered=8.0,
    full_seconds=240.0,
)

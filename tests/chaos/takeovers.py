"""How soon the work of a worker that died is somebody else's: from the fault to the next epoch, by the tables."""

import re
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from tests.chaos.ground import Ground, until
from tests.chaos.scoreboard import percentile
from tests.chaos.trial import Trial

GOAL_SECONDS: Final = 5.0
PATIENCE: Final = 60.0
HELD: Final = """
    SELECT execution_id, epoch FROM agent_service.runs
    WHERE status = 'running' AND worker = (SELECT worker FROM agent_service.worker_leases WHERE worker = $1::uuid)
"""
STRANDED: Final = """
    SELECT count(*) FROM agent_service.runs r JOIN unnest($1::uuid[], $2::bigint[]) AS h(execution_id, epoch)
    ON r.execution_id = h.execution_id WHERE r.status = 'running' AND r.epoch = h.epoch
"""


class Takeovers:
    """Watches workers die, and keeps how long each of their deaths has stranded work."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._seconds: list[float] = []
        self._runs = 0

    async def watch(self, name: str, strike: Callable[[], Awaitable[None]]) -> None:
        """Strike a worker, and wait until nothing of what it held then is still its own."""
        ground = self._trial.ground
        async with ground.database() as database:
            await strike()
            began = monotonic()
            held = await database.fetch(HELD, _worker(ground, name))
            runs = ([row["execution_id"] for row in held], [row["epoch"] for row in held])

            async def is_taken_over() -> bool:
                return not await database.fetchval(STRANDED, *runs)

            if held:
                await until(f"the {len(held)} runs of {name} go on elsewhere", is_taken_over, PATIENCE, 0.1)
                self._seconds.append(monotonic() - began)
                self._runs += len(held)

    def report(self) -> None:
        """Note the figures, and hold the 99th percentile against the goal."""
        values = sorted(self._seconds)
        high = percentile(values, 0.99)
        if high is not None:
            middle = f"p50 {percentile(values, 0.5):.2f} s, p99"
            self._trial.measure(f"{self._runs} runs of {len(values)} workers taken over, {middle}", high, GOAL_SECONDS)


def _worker(ground: Ground, name: str) -> str:
    """Return the id of a worker, which its process tells in its log when it begins."""
    log = (ground.folder / "logs" / f"{name}.log").read_text(errors="replace")
    *_, last = re.finditer(r'"worker": "([0-9a-f-]{36})"', log)
    return last[1]

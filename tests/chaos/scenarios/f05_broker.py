"""F5: the broker dies and comes back; then it stays away while people go on asking, and the backlog drains."""

import asyncio
from typing import Final

from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial

ROUNDS: Final = 4
AWAY_SECONDS: Final = 60.0
SHORT_AWAY_SECONDS: Final = 4.0
BACKLOG: Final = 3_000
SHORT_BACKLOG: Final = 100
DRAINED_SECONDS: Final = 10.0
PENDING: Final = "SELECT count(*) FROM request_manager.outbox WHERE state = 'pending'"


async def kill_broker(trial: Trial) -> None:
    async with trial.crowd(4):
        for _ in range(0 if trial.short else ROUNDS):
            await trial.sleep(trial.chance.uniform(1.0, 3.0))
            await trial.ground.stores["kafka"].kill()
            await trial.fault("kill -9 kafka")
            await trial.ground.stores["kafka"].restart()
            await trial.ground.up()
    await _stay_away(trial)


async def _stay_away(trial: Trial) -> None:
    """Accept a backlog while there is no broker: every call gets its 202."""
    broker = trial.ground.stores["kafka"]
    backlog = SHORT_BACKLOG if trial.short else BACKLOG
    away = SHORT_AWAY_SECONDS if trial.short else AWAY_SECONDS
    await broker.kill()
    await trial.fault("kill -9 kafka, which stays away")
    began = trial.clock()
    asking = asyncio.Semaphore(16)

    async def ask() -> int:
        async with asking:
            user = trial.user()
            await user.ask(trial.question(token_ms=0, words=6))
            return user.attempts

    attempts = await asyncio.gather(*(ask() for _ in range(backlog)))
    trial.notes.append(
        f"accepted without a broker: {backlog} of {sum(attempts)} calls in {trial.clock() - began:.1f} s"
    )
    trial.expect(sum(attempts) == backlog, f"{trial.notes[-1]}; expected every call to be accepted")
    await trial.sleep(max(0.0, away - (trial.clock() - began)))
    await broker.restart()

    async def is_drained() -> bool:
        async with trial.ground.database() as database:
            return not await database.fetchval(PENDING)

    drained = await trial.until("the outbox has drained", is_drained, 180.0)
    trial.measure(f"{backlog} events published after the broker is back", drained, DRAINED_SECONDS)


SCENARIO = Scenario(
    name="F5",
    title="kill -9 of Kafka; Kafka away, then the backlog",
    play=kill_broker,
    first_ok=1.0,
    short_seconds=120.0,
    full_seconds=480.0,
)

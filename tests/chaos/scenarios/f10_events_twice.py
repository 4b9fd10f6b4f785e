"""F10: every event comes twice, a tenth of them thrice, late and out of order: nothing happens twice."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import ConsumerRecord

from shared_models.catalog import TOPICS
from tests.chaos.conversations import converse
from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial

COPY: Final = ("chaos-copy", b"1")
"""The header of a copy, so that copies are not copied; services do not look at it."""
LATEST_SECONDS: Final = 1.0
"""How late a copy may come: in the midst of, and after, what its original has brought about."""
CONVERSATIONS: Final = 200
CPU_GOAL: Final = 1.3


async def repeat_events(trial: Trial) -> None:
    """In the full form the same work is done once without copies, to compare what it costs."""
    most = 12 if trial.short else CONVERSATIONS
    alone = 0.0 if trial.short else await _cost(trial, most)
    async with _copying(trial) as copied:
        cost = await _cost(trial, most)
    trial.notes.append(f"{len(copied)} copies of events came besides")
    trial.expect(len(copied) > 0, "no event was copied; expected every one")
    if alone:
        trial.notes.append(f"CPU of the services: {cost / alone:.2f} times that without copies (goal {CPU_GOAL})")


async def _cost(trial: Trial, conversations: int) -> float:
    """Have conversations, and return the seconds of CPU that the services spent on them."""
    before = _spent(trial)
    async with asyncio.TaskGroup() as talking:
        left = iter(range(conversations))
        for _ in range(6):
            talking.create_task(_talk(trial, left))
    return _spent(trial) - before


async def _talk(trial: Trial, left: Iterator[int]) -> None:
    user = trial.user()
    while next(left, None) is not None:
        await converse(user, trial.question)


def _spent(trial: Trial) -> float:
    processes = [psutil.Process(pid) for pid in trial.ground.pids("").values()]
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


@asynccontextmanager
async def _copying(trial: Trial) -> AsyncIterator[Sequence[ConsumerRecord]]:
    servers = trial.ground.stores["kafka"].url.removeprefix("kafka://")
    consumer = AIOKafkaConsumer(*TOPICS, bootstrap_servers=servers, enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    copied: list[ConsumerRecord] = []
    async with consumer, producer, asyncio.TaskGroup() as sending:
        await consumer.seek_to_end()
        echoing = sending.create_task(_echo(consumer, producer, sending, trial.chance, copied=copied))
        try:
            yield copied
            await asyncio.sleep(2 * LATEST_SECONDS)
        finally:
            echoing.cancel()


async def _echo(
    consumer: AIOKafkaConsumer,
    producer: AIOKafkaProducer,
    sending: asyncio.TaskGroup,
    chance: random.Random,
    *,
    copied: list[ConsumerRecord],
) -> None:
    async for record in consumer:
        if COPY in record.headers:
            continue
        for _ in range(2 if chance.random() < 0.1 else 1):
            copied.append(record)
            sending.create_task(_send_later(producer, record, chance.uniform(0.0, LATEST_SECONDS)))


async def _send_later(producer: AIOKafkaProducer, record: ConsumerRecord, pause: float) -> None:
    await asyncio.sleep(pause)
    await producer.send_and_wait(record.topic, record.value, key=record.key, headers=[*record.headers, COPY])


SCENARIO = Scenario(name="F10", title="every event twice, a tenth thrice, shuffled", play=repeat_events)

"""The greeter: an event asks for a greeting, a job sends it to an outside system, and an event says what came of it."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

from durable_work.inbox import Reaction
from durable_work.jobs import JobType, RetryPolicy
from service_process.opening import open_service
from service_process.settings import ProcessSettings
from shared_clients.bus.port import Bus
from shared_clients.identity import TrustedKeys
from shared_clients.postgres import Tx
from shared_models.catalog import EventType
from shared_models.envelope import Envelope, new_event
from tests.fifth.greeter import queries
from tests.fifth.greeter.catalogue import ASKED, FAILED, GREETER, SENT, GreetingAsked, GreetingEnded
from tests.fifth.greeter.queries import GREETINGS, Greeting


@asynccontextmanager
async def open_app(
    settings: ProcessSettings, bus: Bus, trusted: TrustedKeys, send: Callable[[str], Awaitable[str]]
) -> AsyncGenerator[FastAPI]:
    async with open_service(GREETER, settings) as opening:
        outbox = opening.connect(bus, trusted).outbox

        async def end(event: EventType, tx: Tx, greeting: Greeting, outcome: str) -> None:
            await queries.store_end(tx, greeting, outcome)
            ended = GreetingEnded(outcome=outcome, tries=greeting.claim.tries)
            await outbox.publish(tx, new_event(GREETER.name, event, ended, greeting.context))

        async def on_asked(tx: Tx, event: Envelope, asked: GreetingAsked) -> None:
            await queries.insert_greeting(tx, event, asked.name)
            tx.after_commit(slots.wake)

        retry = RetryPolicy(tries=4, first=0.05)
        done, failed = partial(end, SENT), partial(end, FAILED)
        jobs = JobType(GREETINGS, queries.read_greeting, lambda job: send(job.name), done, failed, retry)
        slots = opening.add_jobs(jobs, count=4)
        yield await opening.start(reactions=[Reaction(ASKED, on_asked)])

"""The greeter in the catalogue of events, and opened on each transport of the bus, with somebody who listens to it.

Faked: the outside system that greetings are sent to, which does as a test tells it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from durable_work.migrating import migrate
from durable_work.outbox import message_of
from local_backends.server import free_port
from service_process.settings import Mode, ProcessSettings
from shared_clients.bus import ensure_topics
from shared_clients.bus.http import HttpBus
from shared_clients.bus.kafka import KafkaBus
from shared_clients.bus.memory import MemoryBus
from shared_clients.bus.port import Bus, Message
from shared_clients.errors import Transient
from shared_clients.postgres import Database, open_database
from shared_models.catalog import EVENTS
from shared_models.envelope import EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import Principal
from shared_models.triggers import dump_triggers, triggers
from tests.fifth.greeter.app import open_app
from tests.fifth.greeter.catalogue import ASKED, FAILED, GREETER, SENT, GreetingAsked
from tests.simulators.calling import Caller, trusted
from tests.simulators.doors import BROKER_AUTHENTICATION, door_of, serving
from tests.simulators.eventing import brokering

OPERATOR = Principal(
    issuer="idp",
    subject="olga",
    tenant="acme",
    credential="key-1",
    channel="api",
    scopes=frozenset({"operate", "operate:fleet"}),
)
MIGRATIONS = Path(__file__).parent / "greeter" / "migrations" / "versions"


@dataclass
class Outside:
    """The outside system: it fails as `faults` says, one for each call, and holds greetings back while it is closed."""

    faults: list[Exception] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    called: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, name: str) -> str:
        self.calls[name] += 1
        self.called.set()
        await self.open.wait()
        if self.faults:
            raise self.faults.pop(0)
        return f"Hello, {name}!"


@dataclass
class Fleet:
    """One greeter, the service that asks it, and the one that listens.

    Attributes:
        asking: the bus of the service that asks.
        heard: the events of the greeter, as the listener got them.
        database: the greeter's schema.
    """

    asking: Bus
    outside: Outside
    heard: asyncio.Queue[Message]
    database: Database
    opening: Callable[[], AbstractAsyncContextManager[FastAPI]]

    async def ask(self, *messages: Message) -> None:
        """Publish as an outbox does: each message again until it is safe."""
        for message in messages:
            while True:
                try:
                    await self.asking.publish(message)
                    break
                except Transient:
                    await asyncio.sleep(0.05)

    async def hear(self, greeting: Message) -> Message:
        """Wait for the greeter's event about a greeting, and drop all events before it."""
        [message] = await self.hear_all(greeting)
        return message

    async def hear_all(self, *greetings: Message) -> list[Message]:
        """Return the greeter's event about each greeting, in whichever order they come; others are dropped."""
        subjects = [greeting.attributes["subject"] for greeting in greetings]
        came: dict[str, Message] = {}
        async with asyncio.timeout(60):
            while came.keys() < set(subjects):
                message = await self.heard.get()
                if message.attributes["subject"] in subjects:
                    came[message.attributes["subject"]] = message
        return [came[subject] for subject in subjects]


def asked(name: str, *, tenant: str = "acme", subject: UUID | None = None) -> Message:
    person = OPERATOR.model_copy(update={"tenant": tenant})
    context = EventContext(str(subject or new_id()), name, tenant)
    return message_of(new_event("asking", ASKED, GreetingAsked(name=name, principal=person), context))


@pytest.fixture(autouse=True)
def planted_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    for event in (ASKED, SENT, FAILED):
        monkeypatch.setitem(EVENTS, event.name, event)


@pytest.fixture(scope="session")
def greeter_template(new_database: Callable[..., str]) -> str:
    url = new_database()
    asyncio.run(migrate(url, GREETER.schema, MIGRATIONS))
    return url


@asynccontextmanager
async def buses(transport: str, request: pytest.FixtureRequest, port: int) -> AsyncGenerator[tuple[Bus, Bus, Bus]]:
    """Yield the buses of the service that asks, of the greeter, and of the listener."""
    async with AsyncExitStack() as stack:
        if transport == "memory":
            bus = MemoryBus(publish_seconds=2)
            yield bus, bus, bus
        elif transport == "kafka":
            url = request.getfixturevalue("kafka_url")
            await ensure_topics(url, frozenset({ASKED.topic, SENT.topic}), partitions=2)
            kafka = KafkaBus(url, session_seconds=1.5)
            stack.push_async_callback(kafka.close)
            yield kafka, kafka, kafka
        else:
            listener = HttpBus("http://127.0.0.1:9", BROKER_AUTHENTICATION)
            door = await stack.enter_async_context(serving(door_of(listener)))
            addresses = {GREETER.name: f"http://127.0.0.1:{port}/events", "listening": f"{door}/events"}
            documents = dump_triggers(triggers(addresses.__getitem__, (ASKED, SENT, FAILED)))
            broker = await stack.enter_async_context(brokering(documents, accept_seconds=5))
            greeter, asking = (HttpBus(broker.sender.url, BROKER_AUTHENTICATION) for _ in range(2))
            for bus_ in (listener, greeter, asking):
                stack.push_async_callback(bus_.close)
            yield asking, greeter, listener


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka), "http"])
async def fleet(
    request: pytest.FixtureRequest, new_database: Callable[..., str], greeter_template: str
) -> AsyncIterator[Fleet]:
    url, port, outside = new_database(like=greeter_template), free_port(), Outside()
    settings = ProcessSettings(
        mode=Mode.DEV, database_url=SecretStr(url), bus_url="memory://", redis_url=SecretStr("memory://")
    )
    heard = asyncio.Queue[Message](maxsize=1000)
    outside.open.set()
    async with AsyncExitStack() as stack:
        asking, greeter, listener = await stack.enter_async_context(buses(request.param, request, port))
        topics = frozenset({SENT.topic})
        await stack.enter_async_context(listener.subscribe(f"listening {new_id()}", topics, heard.put))
        database = await stack.enter_async_context(open_database(url, GREETER.schema))

        @asynccontextmanager
        async def opening() -> AsyncGenerator[FastAPI]:
            async with AsyncExitStack() as process:
                app = await process.enter_async_context(
                    open_app(settings, greeter, trusted(GREETER.name), outside.send)
                )
                if request.param == "http":
                    await process.enter_async_context(serving(app, port))
                yield app

        yield Fleet(asking, outside, heard, database, opening)


@pytest.fixture
def operator() -> Callable[[FastAPI], Caller]:
    return lambda app: Caller(app, GREETER.name, OPERATOR)

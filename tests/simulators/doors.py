"""Processes that take events over HTTP, each a group with a door on a real socket, behind one broker."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

from fastapi import FastAPI

from service_process.serving import Stop, bind, serve
from service_process.web import create_app, draining, event_routes
from shared_clients.bus import BrokerAuthentication
from shared_clients.bus.http import HttpBus
from shared_clients.bus.port import Handler, Message
from shared_clients.identity import SharedSecret
from shared_models.catalog import EventType
from shared_models.problems import ProblemBody
from shared_models.triggers import dump_triggers, triggers
from tests.simulators.eventing import SECRET, brokering

SHARED: Final = SharedSecret(SECRET)
BROKER_AUTHENTICATION: Final = BrokerAuthentication(SHARED.token, SHARED.verify_sender)


class Processes:
    """A bus as several processes have it: one publishes, and each group, named by its first word, is one subscriber."""

    def __init__(self, publisher: HttpBus, groups: dict[str, HttpBus]) -> None:
        self._publisher = publisher
        self._groups = groups

    async def publish(self, message: Message) -> None:
        await self._publisher.publish(message)

    def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> AbstractAsyncContextManager[None]:
        return self._groups[group.partition(" ")[0]].subscribe(group, topics, handler)

    async def close(self) -> None:
        await self._publisher.close()


@asynccontextmanager
async def processes(type_: str, groups: Iterable[str]) -> AsyncGenerator[Processes]:
    """Run a broker whose triggers give every event of a type to each of the groups."""
    async with AsyncExitStack() as stack:
        buses: dict[str, HttpBus] = {}
        addresses: dict[str, str] = {}
        for group in groups:
            bus = HttpBus("http://127.0.0.1:9", BROKER_AUTHENTICATION, receive_seconds=1)
            stack.push_async_callback(bus.close)
            address = await stack.enter_async_context(serving(door_of(bus)))
            buses[group], addresses[group] = bus, f"{address}/events"
        event = EventType(type_, ProblemBody, frozenset({"test"}), frozenset(buses), type_)
        documents = dump_triggers(triggers(addresses.__getitem__, [event]))
        broker = await stack.enter_async_context(brokering(documents, accept_seconds=3))
        publisher = HttpBus(broker.sender.url, BROKER_AUTHENTICATION)
        stack.push_async_callback(publisher.close)
        yield Processes(publisher, buses)


def door_of(bus: HttpBus) -> FastAPI:
    """Return an app with nothing but the door of a bus."""

    async def ready() -> None:
        pass

    return create_app("door", routers=event_routes(bus), ready=ready)


@asynccontextmanager
async def serving(app: FastAPI, port: int = 0) -> AsyncGenerator[str]:
    """Serve an app at a port, by default a free one: `http://127.0.0.1:<port>`."""
    listener, stop = bind("127.0.0.1", port), Stop()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    served = asyncio.create_task(serve(app, host="", port=0, draining=draining(app).set, sockets=[listener], stop=stop))
    try:
        yield url
    finally:
        stop.request()
        stop.request()
        await served

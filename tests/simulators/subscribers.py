"""Those who get events from a broker, on real sockets; they misbehave as a test tells them.

They are aiohttp's server and not our own, so that neither end of a delivery is our code twice.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

PATIENCE: Final = 10.0

type Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answering(status: int, body: str = "", **headers: str) -> Behaviour:
    """Answer at once; underscores in the names of headers stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body or None, headers=named)

    return answer


def waiting(gate: asyncio.Event, status: int = 202) -> Behaviour:
    """Answer when the gate opens."""

    async def wait(_: web.Request) -> web.Response:
        await gate.wait()
        return web.Response(status=status)

    return wait


async def resetting(request: web.Request) -> web.Response:
    """Cut the connection instead of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hanging(_: web.Request) -> web.Response:
    """Never answer."""
    await asyncio.Event().wait()
    return web.Response()


@dataclass(frozen=True, slots=True)
class Received:
    """A request as a subscriber got it, with the names of its headers in lower case."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["ce-id"]


@dataclass(eq=False)
class Subscriber:
    """A server that behaves by a list, one entry for each request, and by the last of them from then on."""

    script: list[Behaviour] = field(default_factory=lambda: [answering(202)])
    received: list[Received] = field(default_factory=list)
    port: int = 0
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.received]

    def says(self, *script: Behaviour) -> None:
        self.script = list(script)

    async def got(self, count: int = 1) -> list[Received]:
        """Wait until so many requests have come."""
        async with asyncio.timeout(PATIENCE), self._came:
            await self._came.wait_for(lambda: len(self.received) >= count)
        return self.received

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        async with self._came:
            self.received.append(Received({k.lower(): v for k, v in request.headers.items()}, body))
            self._came.notify_all()
        behave = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await behave(request)


@asynccontextmanager
async def subscribing(port: int = 0) -> AsyncGenerator[Subscriber]:
    """Serve at a port of this machine, a free one unless it says which."""
    subscriber = Subscriber()
    app = web.Application(client_max_size=0)
    app.router.add_post("/events", subscriber.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        subscriber.port = int(runner.addresses[0][1])
        yield subscriber
    finally:
        await runner.cleanup()

"""Clients that do not read, and too many clients, on real sockets: little is kept for them, and others do not wait."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final

import pytest
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import StreamingResponse

from service_process import metrics
from service_process.connection import SPARE_CONNECTIONS, STALL_SECONDS, UNSENT_BYTES, BoundedConnection
from service_process.serving import bind
from service_process.web import create_app

STALL: Final = 0.6
PATIENCE: Final = 10.0
PIECE: Final = b"id: 1-1\ndata: " + b"x" * 1000 + b"\n\n"
FLOOD: Final = b"GET /flood HTTP/1.1\r\nHost: t\r\n\r\n"
LIVE: Final = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"
HELLO: Final = b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n"
MOST: Final = 20


class Crowded(BoundedConnection):
    stall_seconds = STALL
    max_connections = MOST


class Quiet(uvicorn.Server):
    """A server that leaves the test's signals alone."""

    async def serve(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]  # only the signals differ
        await self._serve(sockets)  # type: ignore[arg-type]  # sockets


class Flood:
    """What has been asked of the endless stream, and how it ended."""

    def __init__(self) -> None:
        self.pieces = 0
        self.ended = 0

    async def __call__(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.pieces += 1
                yield PIECE
                await asyncio.sleep(0)
        finally:
            self.ended += 1


def app(flood: Flood) -> FastAPI:
    router = APIRouter()

    @router.get("/hello")
    async def hello() -> str:
        return "hello"

    @router.post("/hello")
    async def read(request: Request) -> int:
        return len(await request.body())

    @router.get("/flood")
    async def endless() -> StreamingResponse:
        return StreamingResponse(flood(), media_type="text/event-stream")

    async def ready() -> None:
        return

    return create_app("test", routers=[router], ready=ready)


@pytest.fixture
def flood() -> Flood:
    return Flood()


@pytest.fixture
async def port(flood: Flood) -> AsyncGenerator[int]:
    listener = bind("127.0.0.1", 0)
    server = Quiet(uvicorn.Config(app(flood), http=Crowded, lifespan="off", log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve([listener]))
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving
    assert not server.server_state.connections
    assert flood.ended == (1 if flood.pieces else 0)


class Talk:
    """One raw connection, which reads when it is told to."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        self._port = port

    async def say(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self.socket.getsockname()[1] == 0:
            await loop.sock_connect(self.socket, ("127.0.0.1", self._port))
        await loop.sock_sendall(self.socket, data)

    async def hear(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.get_running_loop().sock_recv(self.socket, 65_536)

    async def rest(self) -> int:
        """Read until the other side closes or cuts, and return how much came."""
        count = 0
        with contextlib.suppress(ConnectionError):
            while data := await self.hear():
                count += len(data)
        return count


@pytest.fixture
async def dial(port: int) -> AsyncGenerator[Callable[[], Talk]]:
    talks: list[Talk] = []

    def dial() -> Talk:
        talks.append(Talk(port))
        return talks[-1]

    yield dial
    for talk in talks:
        talk.socket.close()


def cut(awaited: str) -> float:
    count: float = metrics.CONNECTIONS_CUT.labels(awaited)._value.get()
    return count


async def until_cut(before: float) -> float:
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(PATIENCE):
        while cut("reading") == before:  # noqa: ASYNC110 - a counter, as an operator sees it
            await asyncio.sleep(0.01)
    return asyncio.get_running_loop().time() - began


async def test_a_client_that_does_not_read_is_cut_and_little_was_kept_for_it(
    dial: Callable[[], Talk], flood: Flood
) -> None:
    before, talk = cut("reading"), dial()
    await talk.say(FLOOD)
    assert await talk.hear()
    assert STALL / 2 < await until_cut(before) < 3 * STALL
    async with asyncio.timeout(PATIENCE):
        while not flood.ended:  # noqa: ASYNC110 - the stream's own end
            await asyncio.sleep(0.01)
    received = await talk.rest()
    kept = flood.pieces * len(PIECE) - received
    assert kept <= 4 * UNSENT_BYTES
    assert STALL_SECONDS <= 30


async def test_a_client_that_reads_slowly_is_not_cut(dial: Callable[[], Talk], flood: Flood) -> None:
    before, talk = cut("reading"), dial()
    await talk.say(FLOOD)
    clock = asyncio.get_running_loop().time
    end, received = clock() + 4 * STALL, 0
    while clock() < end:
        received += len(await talk.hear())
        await asyncio.sleep(0.005)
    assert cut("reading") == before
    assert flood.ended == 0
    assert received > 4 * UNSENT_BYTES


async def test_others_are_served_while_one_does_not_read(dial: Callable[[], Talk], flood: Flood) -> None:
    stalled = dial()
    await stalled.say(FLOOD)
    for _ in range(10):
        other = dial()
        await other.say(HELLO)
        assert (await other.hear()).startswith(b"HTTP/1.1 200")
        other.socket.close()
    assert flood.ended == 0


async def test_beyond_their_number_connections_are_refused_but_for_probes(dial: Callable[[], Talk]) -> None:
    first = [dial() for _ in range(MOST)]
    for talk in first:
        await talk.say(HELLO)
        assert (await talk.hear()).startswith(b"HTTP/1.1 200")
    for request in (HELLO, b"POST /hello HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc"):
        late = dial()
        await late.say(request)
        head, _, body = (await late.hear()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"retry-after: " in head
        assert json.loads(body)["type"] == "urn:flotilla:problem:overloaded"
        assert await late.rest() == 0
    probe = dial()
    for _ in range(2):
        await probe.say(LIVE)
        assert (await probe.hear()).startswith(b"HTTP/1.1 200")
    await first[0].say(HELLO)
    assert (await first[0].hear()).startswith(b"HTTP/1.1 200")


async def test_beyond_the_spare_ones_too_a_connection_is_refused_unheard(dial: Callable[[], Talk]) -> None:
    for _ in range(MOST + SPARE_CONNECTIONS):
        await dial().say(b"G")
    late = dial()
    await late.say(b"G")
    assert (await late.hear()).startswith(b"HTTP/1.1 503")
    await late.rest()


async def test_a_place_that_becomes_free_is_taken(dial: Callable[[], Talk]) -> None:
    first = [dial() for _ in range(MOST)]
    for talk in first:
        await talk.say(LIVE)
        await talk.hear()
    first[0].socket.close()
    async with asyncio.timeout(PATIENCE):
        while True:
            late = dial()
            await late.say(HELLO)
            if (await late.hear()).startswith(b"HTTP/1.1 200"):
                return
            late.socket.close()
            await asyncio.sleep(0.01)

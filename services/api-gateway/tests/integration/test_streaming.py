"""Bodies flow through the hop both ways, as fast as the slower side reads them, and end when the client leaves."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_gateway.hop import Call, Forwarder, Hop
from service_process.web import create_app
from shared_clients.identity import Issuer
from shared_models.problems import Problem, Problems
from tests.simulators.asking import somebody
from tests.simulators.calling import KEY
from tests.simulators.doors import serving

NAME = "request-manager"
PART = b"x" * 65_536
PARTS = 1024
"""64 MiB in all."""
MEMORY_CAP = 8 << 20


@dataclass
class Large:
    """A service with large bodies, and what became of them."""

    received: int = 0
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: Request) -> Response:
        try:
            async for part in request.stream():
                self.received += len(part)
                self.reading.set()
                await self.go_on.wait()
        except ClientDisconnect:
            self.left.set()
            raise
        return Response(str(self.received))

    async def refuse(self, _: Request) -> Response:
        return Response("too large", 413)

    async def give(self, request: Request) -> Response:
        return StreamingResponse(self._parts(int(request.query_params["parts"])))

    async def cut(self, _: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield PART
            await self.go_on.wait()
            raise OSError("as planted")

        return StreamingResponse(parts())

    async def _parts(self, count: int) -> AsyncIterator[bytes]:
        try:
            yield PART
            await self.go_on.wait()
            for part in repeat(PART, count - 1):
                yield part
        finally:
            self.left.set()

    @property
    def app(self) -> FastAPI:
        routes = (("/take", self.take), ("/refuse", self.refuse), ("/give", self.give), ("/cut", self.cut))
        app = FastAPI(routes=[Route(path, endpoint, methods=["GET", "POST"]) for path, endpoint in routes])
        app.state.draining = asyncio.Event()
        return app


@pytest.fixture
def large() -> Large:
    return Large()


@pytest.fixture(params=["in process", "over HTTP"])
async def service(request: pytest.FixtureRequest, large: Large) -> AsyncIterator[ASGIApp]:
    if request.param == "in process":
        yield large.app
        return
    async with serving(large.app) as url, Forwarder(NAME, [url]) as forwarder:
        yield forwarder


@dataclass
class Client:
    """A client at the other end of ASGI: it sends endless or counted parts, and may leave."""

    parts: Iterator[bytes]
    sent: int = 0
    leaves_after: int | None = None
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    answer: asyncio.Queue[Message] = field(default_factory=lambda: asyncio.Queue(maxsize=4))

    async def receive(self) -> Message:
        if self.sent == self.leaves_after:
            return {"type": "http.disconnect"}
        part = next(self.parts, None)
        if part is None:
            await self.leaving.wait()
            return {"type": "http.disconnect"}
        self.sent += 1
        return {"type": "http.request", "body": part, "more_body": part != b""}

    async def send(self, message: Message) -> None:
        await self.answer.put(message)

    async def body(self) -> tuple[int, int]:
        """Read the answer, and return its status and how many bytes it has."""
        start, size = await self.answer.get(), 0
        while (message := await self.answer.get()).get("more_body", False):
            size += len(message["body"])
        return start["status"], size + len(message.get("body", b""))


def call(service: ASGIApp, client: Client, path: str, method: str = "POST", query: bytes = b"") -> asyncio.Task[None]:
    async def forward(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request({**scope, "type": "http", "path": path, "method": method}, receive)
        hop = Hop({NAME: service}, Issuer("api-gateway", KEY))
        await hop.forward(NAME, somebody(), request)(scope, receive, send)

    scope = {"query_string": query, "headers": [(b"content-type", b"application/octet-stream")]}
    return asyncio.create_task(forward(scope, client.receive, client.send))


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_CAP, f"a peak of {peak / 2**20:.1f} MiB while {PARTS * len(PART) >> 20} MiB passed"


def counted(count: int) -> Iterator[bytes]:
    yield from repeat(PART, count)
    yield b""


async def test_large_request_passes_without_being_held(large: Large, service: ASGIApp) -> None:
    large.go_on.set()
    client = Client(counted(PARTS))
    with bounded_memory():
        task = call(service, client, "/take")
        start, body = await client.answer.get(), await client.answer.get()
        await task
    assert (start["status"], body["body"]) == (200, str(PARTS * len(PART)).encode())


async def test_large_answer_passes_without_being_held(large: Large, service: ASGIApp) -> None:
    large.go_on.set()
    client = Client(iter([b""]))
    with bounded_memory():
        task = call(service, client, "/give", "GET", b"parts=%d" % PARTS)
        assert await client.body() == (200, PARTS * len(PART))
        await task


async def test_beginning_of_an_answer_arrives_before_its_end_exists(large: Large, service: ASGIApp) -> None:
    client = Client(iter([b""]))
    task = call(service, client, "/give", "GET", b"parts=2")
    assert (await client.answer.get())["status"] == 200
    size = 0
    while size < len(PART):
        size += len((await client.answer.get())["body"])
    assert not large.left.is_set()
    large.go_on.set()
    rest = 0
    while (message := await client.answer.get()).get("more_body", False):
        rest += len(message["body"])
    await task
    assert rest + len(message.get("body", b"")) == len(PART)


async def test_service_that_does_not_read_stops_the_client(large: Large, service: ASGIApp) -> None:
    client = Client(repeat(PART))
    task = call(service, client, "/take")
    await large.reading.wait()
    before = -1
    while client.sent != before:  # until no further part is taken in many turns of the loop
        before = client.sent
        for _ in range(2000):
            await asyncio.sleep(0)
    assert client.sent * len(PART) < 64 << 20, "only what the buffers of sockets take"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_service_sees_that_a_client_left_within_its_request(large: Large, service: ASGIApp) -> None:
    large.go_on.set()
    with pytest.raises(ClientDisconnect):
        await call(service, Client(repeat(PART), leaves_after=8), "/take")
    async with asyncio.timeout(20):
        await large.left.wait()
    assert large.received <= 8 * len(PART)


async def test_call_ends_when_its_client_leaves_before_the_answer_is_complete(large: Large) -> None:
    async with serving(large.app) as url, Forwarder(NAME, [url]) as forwarder:
        client = Client(iter([b""]))
        task = call(forwarder, client, "/give", "GET", b"parts=2")
        assert (await client.answer.get())["status"] == 200
        client.leaving.set()
        with pytest.raises(ClientDisconnect):
            await task
        async with asyncio.timeout(20):
            await large.left.wait()


async def test_answer_that_comes_before_the_request_is_read_is_passed_on(large: Large) -> None:
    async with serving(large.app) as url, Forwarder(NAME, [url]) as forwarder:
        client = Client(repeat(PART))
        task = call(forwarder, client, "/refuse")
        assert await client.body() == (413, len("too large"))
        await task


async def test_error_of_a_request_within_its_body_is_the_answer(large: Large) -> None:
    large.go_on.set()

    def parts() -> Iterator[bytes]:
        yield from repeat(PART, 4)
        raise Problem(Problems.BODY_TOO_LARGE, "as planted")

    async with serving(large.app) as url, Forwarder(NAME, [url]) as forwarder:
        with pytest.raises(Problem, match="as planted"):
            await call(forwarder, Client(parts()), "/take")


async def test_answer_that_breaks_off_after_its_beginning_breaks_the_connection_of_the_client(large: Large) -> None:
    async with serving(large.app) as url, Forwarder(NAME, [url]) as forwarder:
        hop = Hop({NAME: forwarder}, Issuer("api-gateway", KEY))

        async def forward(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request({**scope, "path": "/cut"}, receive)
            await hop.forward(NAME, somebody(), request)(scope, receive, send)

        gateway = create_app("gateway", routers=[], ready=lambda: asyncio.sleep(0))
        gateway.mount("/", forward)
        received: list[bytes] = []

        async def read(response: httpx.Response) -> None:
            async for part in response.aiter_raw():
                received.append(part)
                large.go_on.set()

        async with (
            serving(gateway) as at,
            httpx.AsyncClient(base_url=at) as client,
            client.stream("GET", "/cut") as response,
        ):
            with pytest.raises(httpx.RemoteProtocolError):
                await read(response)
        assert (response.status_code, b"".join(received)) == (200, PART)


async def test_answer_that_the_gateway_itself_reads_is_bounded_and_one_that_breaks_off_is_a_problem(
    large: Large,
) -> None:
    large.go_on.set()
    async with serving(large.app) as url, Forwarder(NAME, [url]) as forwarder:
        hop = Hop({NAME: forwarder}, Issuer("api-gateway", KEY), max_answer=4 * len(PART))
        whole = await hop.call(NAME, somebody(), Call("GET", "/give", query=b"parts=4"))
        assert len(whole.body) == 4 * len(PART)
        for path, kind in (("/give", Problems.INTERNAL), ("/cut", Problems.OUTCOME_UNKNOWN)):
            with pytest.raises(Problem) as caught:
                await hop.call(NAME, somebody(), Call("GET", path, query=b"parts=5"))
            assert caught.value.kind is kind.value

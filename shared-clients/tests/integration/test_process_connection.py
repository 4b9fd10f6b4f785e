"""Clients that are slow, endless or malformed, on a real socket: each is cut or answered, and no other client waits."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

import pytest
import uvicorn
from fastapi import APIRouter, FastAPI, Request

from service_process.connection import BoundedConnection
from service_process.serving import bind
from service_process.web import BodyLimits, create_app, parse_body
from shared_models.requests import NewRequest

WAIT: Final = 0.6
PATIENCE: Final = 5.0
GET: Final = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"


class Impatient(BoundedConnection):
    wait_seconds = WAIT


class Quiet(uvicorn.Server):
    """A server that leaves the test's signals alone."""

    async def serve(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]  # only the signals differ
        await self._serve(sockets)  # type: ignore[arg-type]  # sockets


def app() -> FastAPI:
    router = APIRouter()

    @router.post("/echo")
    async def echo(request: Request) -> str:
        return str((await parse_body(request, NewRequest)).content)

    @router.post("/unread")
    async def unread() -> str:
        return "not read"

    async def ready() -> None:
        return

    limits = BodyLimits(body_bytes=10_000, receive_seconds=WAIT)
    return create_app("test", routers=[router], ready=ready, limits=limits)


@pytest.fixture
async def port() -> AsyncGenerator[int]:
    listener = bind("127.0.0.1", 0)
    config = uvicorn.Config(app(), http=Impatient, lifespan="off", log_config=None, access_log=False)
    server = Quiet(config)
    serving = asyncio.create_task(server.serve([listener]))
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving
    assert not server.server_state.connections


class Talk:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def drip(self, data: bytes, pause: float = 0.02) -> None:
        """Send the same bytes again and again until nobody takes them."""
        try:
            while True:
                self.writer.write(data)
                await self.writer.drain()
                await asyncio.sleep(pause)
        except ConnectionError:
            return

    async def hear(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def cut(self) -> None:
        """Wait until the other side has closed."""
        async with asyncio.timeout(PATIENCE):
            try:
                await self.reader.read(-1)
            except ConnectionError:
                return


type Dial = Callable[[], Awaitable[Talk]]


@pytest.fixture
async def dial(port: int) -> AsyncGenerator[Dial]:
    talks: list[Talk] = []

    async def dial() -> Talk:
        talks.append(Talk(*await asyncio.open_connection("127.0.0.1", port)))
        return talks[-1]

    yield dial
    for talk in talks:
        talk.writer.close()
        with contextlib.suppress(ConnectionError):
            await talk.writer.wait_closed()


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
@pytest.mark.parametrize("length", [b"Content-Length: 4", b"Transfer-Encoding: chunked"])
async def test_upgrade_with_a_body_is_refused_at_once(dial: Dial, protocol: str, length: bytes) -> None:
    talk = await dial()
    upgrade = f"Connection: Upgrade\r\nUpgrade: {protocol}\r\n".encode()
    talk.say(b"POST /read HTTP/1.1\r\nHost: x\r\n" + upgrade + length + b"\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
    status, headers, body = await talk.hear()
    assert (status, headers["connection"]) == (400, "close")
    assert b"leave out Upgrade" in body
    await talk.cut()


async def test_a_connection_that_says_nothing_is_cut(dial: Dial) -> None:
    await (await dial()).cut()


@pytest.mark.parametrize("beginning", [b"G", b"GET /livez HTTP/1.1\r\n", b"GET /livez HTTP/1.1\r\nHost: t\r\nX: "])
async def test_headers_that_come_by_the_byte_are_cut(dial: Dial, beginning: bytes) -> None:
    talk = await dial()
    talk.say(beginning)
    dripping = asyncio.create_task(talk.drip(b"a"))
    await talk.cut()
    await dripping


async def test_empty_lines_between_requests_do_not_hold_a_connection(dial: Dial) -> None:
    talk = await dial()
    talk.say(GET)
    assert (await talk.hear())[0] == 200
    dripping = asyncio.create_task(talk.drip(b"\r\n"))
    await talk.cut()
    await dripping


async def test_a_body_that_comes_by_the_byte_gets_408_and_is_cut(dial: Dial) -> None:
    talk = await dial()
    talk.say(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n")
    dripping = asyncio.create_task(talk.drip(b" "))
    status, headers, _ = await talk.hear()
    assert (status, headers["connection"]) == (408, "close")
    await talk.cut()
    await dripping


async def test_a_connection_is_cut_when_the_rest_of_an_unread_body_does_not_arrive(dial: Dial) -> None:
    talk = await dial()
    talk.say(b"POST /unread HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n")
    assert (await talk.hear())[0] == 200
    dripping = asyncio.create_task(talk.drip(b" "))
    await talk.cut()
    await dripping


async def test_a_body_too_large_is_answered_before_it_has_come_and_the_connection_lives_on(dial: Dial) -> None:
    talk = await dial()
    talk.say(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 500000\r\n\r\n")
    status, _, body = await talk.hear()
    assert status == 413
    assert json.loads(body)["type"] == "urn:flotilla:problem:body-too-large"
    talk.say(b"a" * 500_000)
    talk.say(GET[:10])
    await talk.writer.drain()
    talk.say(GET[10:])
    assert (await talk.hear())[0] == 200


async def test_after_an_unread_body_the_connection_serves_the_next_request(dial: Dial) -> None:
    talk = await dial()
    for size in (300_000, 70_000, 40_000, 1):
        head = (
            b"POST /unread HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
        )
        talk.say(head)
        status = (await talk.hear())[0]
        assert status == (413 if size > 10_000 else 200)
        talk.say(b"a" * size)
        await talk.writer.drain()
        await asyncio.sleep(WAIT / 10)
    talk.say(GET)
    assert (await talk.hear())[0] == 200


async def test_a_chunked_body_too_large_is_answered(dial: Dial) -> None:
    talk = await dial()
    talk.say(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    talk.say(b"8000\r\n" + b"a" * 0x8000 + b"\r\n0\r\n\r\n")
    assert (await talk.hear())[0] == 413


async def test_requests_one_after_the_other_outlive_the_deadline(dial: Dial) -> None:
    talk = await dial()
    async with asyncio.timeout(PATIENCE):
        end = asyncio.get_running_loop().time() + 3 * WAIT
        while asyncio.get_running_loop().time() < end:
            talk.say(GET)
            assert (await talk.hear())[0] == 200
            await asyncio.sleep(WAIT / 5)


async def test_pipelined_requests_are_answered_in_order(dial: Dial) -> None:
    talk = await dial()
    body = b'{"content":"hello"}'
    post = b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    talk.say(GET + post + body + GET)
    assert [(await talk.hear())[2] for _ in range(3)] == [b"alive\n", b'"hello"', b"alive\n"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /livez HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: t\r\nX Y: z\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
        b"GET /livez HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 1_000_000,
        b"GET /" + b"a" * 1_000_000,
    ],
    ids=[
        "text",
        "version",
        "TLS",
        "two lengths",
        "length and chunks",
        "negative",
        "name",
        "path",
        "many",
        "long",
        "url",
    ],
)
async def test_bytes_that_are_no_request_get_a_400_problem_and_are_cut(dial: Dial, request_bytes: bytes) -> None:
    talk = await dial()
    talk.say(request_bytes)
    status, headers, body = await talk.hear()
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert json.loads(body)["status"] == 400
    await talk.cut()


async def test_others_are_served_while_many_are_slow(dial: Dial) -> None:
    slow = [await dial() for _ in range(50)]
    for talk in slow:
        talk.say(b"GET /livez HTTP/1.1\r\nX: ")
    fast = await dial()
    fast.say(GET)
    assert (await fast.hear())[0] == 200
    await asyncio.gather(*(talk.cut() for talk in slow))


async def test_a_head_that_is_too_large_is_refused_in_one_write_too(dial: Dial) -> None:
    talk = await dial()
    talk.say(b"GET /livez HTTP/1.1\r\nHost: t\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 1000) for n in range(40)))
    status, _, body = await talk.hear()
    assert status == 400
    assert "32768 bytes" in json.loads(body)["detail"]


async def test_white_space_after_a_value_is_no_part_of_it(dial: Dial) -> None:
    talk = await dial()
    body = b'{"content":"hi"}'
    head = b"POST /echo HTTP/1.1\r\nHost: t \r\nContent-Type: application/json \t\r\nContent-Length: %d \r\n\r\n"
    talk.say(head % len(body) + body)
    assert (await talk.hear())[::2] == (200, b'"hi"')


async def test_head_is_answered_like_get_without_the_body(dial: Dial) -> None:
    talk = await dial()
    talk.say(b"HEAD /livez HTTP/1.1\r\nHost: t\r\n\r\n" + GET)
    async with asyncio.timeout(PATIENCE):
        head = await talk.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 6" in head.lower()
    assert (await talk.hear())[::2] == (200, b"alive\n"), "the next answer follows at once"


async def test_head_of_another_method_and_of_nothing_are_refused(dial: Dial) -> None:
    talk = await dial()
    for path, status in ((b"/echo", b"405"), (b"/nothing", b"404")):
        talk.say(b"HEAD %s HTTP/1.1\r\nHost: t\r\n\r\n" % path)
        async with asyncio.timeout(PATIENCE):
            assert (await talk.reader.readuntil(b"\r\n\r\n")).split()[1] == status

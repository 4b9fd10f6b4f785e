"""Streams: heartbeats in silence, repeated permission checks, and a proper end when the replica shuts down."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic

import pytest
import pytest_asyncio
from starlette.types import Message

from api_gateway.app import open_app
from api_gateway.settings import Settings
from api_gateway.streams import HEARTBEAT_SECONDS, RECHECK_SECONDS, RETRY_HINT, event_stream, relay
from run_frames import FrameReader
from service_process.web import draining
from shared_clients.identity import DevKey, Issuer
from shared_clients.redis import Redis, open_redis
from shared_models.frames import START, Cursor
from shared_models.ids import new_id
from tests.simulators.calling import KEY
from tests.simulators.house import DEV_KEY, House, events
from tests.simulators.streams import Rows, Run, flushed

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis() -> AsyncGenerator[Redis]:
    async with open_redis("memory://") as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def reader(redis: Redis) -> AsyncGenerator[FrameReader]:
    async with FrameReader(redis, Rows()) as opened:
        yield opened


class Permissions:
    """Answers permission checks one after the other, and counts them."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.checks = 0

    async def __call__(self) -> bool:
        self.checks += 1
        return self.answers.pop(0) if self.answers else True


async def test_stream_is_the_frames_and_ends_with_the_run(redis: Redis, reader: FrameReader) -> None:
    run = Run(redis)
    await run.tell(["Hello ", "there."])
    pieces = [piece async for piece in relay(reader, "acme", run.execution_id, START, still_permitted=Permissions())]
    assert pieces[0] == RETRY_HINT
    assert events(b"".join(pieces).decode()) == await run.log()


async def test_stream_continues_after_the_cursor(redis: Redis, reader: FrameReader) -> None:
    run = Run(redis)
    await run.tell(["a", "b", "c"])
    log = await run.log()
    for position, frame in enumerate(log[:-1], start=1):
        stream = relay(reader, "acme", run.execution_id, frame.cursor, still_permitted=Permissions())
        pieces = [piece async for piece in stream]
        assert events(b"".join(pieces).decode()) == log[position:]


async def test_silence_is_broken_by_comments(redis: Redis, reader: FrameReader) -> None:
    run = Run(redis)
    async with run.writer() as writer:
        await writer.begin(None, [])
        await flushed(writer)
        began = monotonic()
        async with aclosing(
            relay(reader, "acme", run.execution_id, START, still_permitted=Permissions(), heartbeat=0.1)
        ) as stream:
            pieces = [await anext(stream) for _ in range(5)]
    assert pieces[0] == RETRY_HINT
    assert pieces[1].startswith(b"id: 1-1\n")
    assert pieces[2:] == [b":\n\n"] * 3
    assert monotonic() - began >= 0.25
    assert HEARTBEAT_SECONDS <= 15


async def test_stream_ends_once_its_reader_loses_permission(redis: Redis, reader: FrameReader) -> None:
    run, permissions = Run(redis), Permissions(True, True, False)
    stream = relay(reader, "acme", run.execution_id, START, still_permitted=permissions, heartbeat=0.02, recheck=0.05)
    async with asyncio.timeout(10):
        pieces = [piece async for piece in stream]
    assert set(pieces[1:]) == {b":\n\n"}
    assert permissions.checks == 3
    assert RECHECK_SECONDS <= 60


async def test_permission_is_checked_in_a_busy_stream_too(redis: Redis, reader: FrameReader) -> None:
    run, permissions = Run(redis), Permissions(False)
    message = new_id()
    async with run.writer() as writer:
        await writer.begin(None, [])
        writer.append("TEXT_MESSAGE_START", messageId=message, role="assistant")
        async with asyncio.timeout(10):
            async for _ in relay(
                reader, "acme", run.execution_id, START, still_permitted=permissions, heartbeat=10, recheck=0.05
            ):
                writer.text(message, "more ")
                await flushed(writer)
    assert permissions.checks == 1


async def test_drained_reader_ends_its_streams_and_starts_none(redis: Redis, reader: FrameReader) -> None:
    run = Run(redis)
    async with run.writer() as writer:
        await writer.begin(None, [])
        await flushed(writer)
        stream = relay(reader, "acme", run.execution_id, START, still_permitted=Permissions(), heartbeat=10)
        async with asyncio.timeout(5), aclosing(stream):
            assert await anext(stream) == RETRY_HINT
            assert (await anext(stream)).startswith(b"id: 1-1\n")
            reader.drain()
            assert [piece async for piece in stream] == []
        again = relay(reader, "acme", run.execution_id, Cursor(1, 1), still_permitted=Permissions())
        assert [piece async for piece in again] == [RETRY_HINT]


async def test_abandoned_stream_leaves_no_follower(redis: Redis, reader: FrameReader) -> None:
    run = Run(redis)
    async with aclosing(
        relay(reader, "acme", run.execution_id, START, still_permitted=Permissions(), heartbeat=0.01)
    ) as stream:
        await anext(stream)
        await anext(stream)
        assert len(reader._followed) == 1
    assert reader._followed == {}


async def test_stream_forbids_proxies_to_store_or_buffer_it() -> None:
    async def nothing() -> AsyncGenerator[bytes]:
        yield b""

    response = event_stream(nothing(), {"Location": "/chat/x"})
    assert response.media_type == "text/event-stream"
    assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-store", "no")
    assert response.headers["location"] == "/chat/x"


async def test_replica_that_shuts_down_ends_its_open_streams_properly(house: House) -> None:
    settings = Settings(**house.where, allowed_hosts="gateway")
    issuer = Issuer("api-gateway", KEY)
    opening = open_app(settings, house.services, house.redis, issuer, keys=DevKey(DEV_KEY))
    sent: asyncio.Queue[Message] = asyncio.Queue()
    body: list[Message] = [{"type": "http.request", "body": b'{"content": "never"}', "more_body": False}]

    async def receive() -> Message:
        return body.pop() if body else await asyncio.Future()

    headers = [
        *((b"host", b"gateway"), (b"content-type", b"application/json")),
        (b"authorization", f"Bearer {DEV_KEY}".encode()),
    ]
    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/chat",
        "raw_path": b"/chat",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
    }
    async with asyncio.timeout(15), opening as gateway:
        streaming = asyncio.create_task(gateway.app(scope, receive, sent.put))
        text = b""
        while b"TEXT_MESSAGE_CONTENT" not in text:
            text += (await sent.get()).get("body", b"")
        draining(gateway.app).set()
        await streaming
        last: Message = {}
        while not sent.empty():
            last = sent.get_nowait()
    assert last["type"] == "http.response.body"
    assert last["more_body"] is False
    assert b"RUN_ERROR" not in text
    assert b"RUN_FINISHED" not in text

"""The HTTP client: which calls are retried, and which kind of error the caller gets."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

import httpx
import pytest

from shared_clients import tracing
from shared_clients.errors import Permanent, Transient, Unknown
from shared_clients.outbound import HttpClient

AT_ONCE: Final = {"Retry-After": "0"}
PROBLEM: Final = b'{"type":"urn:x","title":"There is no such request","status":404,"detail":"r-1 is not yours"}'

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"

type Reply = httpx.Response | Exception


class Server:
    """A server that gives its replies one after the other, then 200, and remembers what it was asked."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        reply = self.replies.pop(0) if self.replies else httpx.Response(200, content=b"fine")
        if isinstance(reply, Exception):
            raise reply
        return reply

    def client(self) -> HttpClient:
        return HttpClient("http://server", headers={"Authorization": "Bearer k"}, transport=httpx.MockTransport(self))


def busy(status: int = 503) -> httpx.Response:
    return httpx.Response(status, headers=AT_ONCE)


async def test_a_call_brings_its_answer_with_our_headers_and_the_trace() -> None:
    server = Server()
    async with server.client() as client:
        with tracing.consumer_span({"traceparent": f"00-{TRACE}-b7ad6b7169203331-00"}, "asking"):
            answer = await client.call("POST", "/requests", content=b"{}", headers={"Idempotency-Key": "k1"})
    assert answer.content == b"fine"
    sent = server.asked[0].headers
    assert sent["authorization"] == "Bearer k"
    assert sent["content-type"] == "application/json"
    assert sent["idempotency-key"] == "k1"
    assert sent["traceparent"].split("-")[1] == TRACE


@pytest.mark.parametrize("reply", [busy(408), busy(429), busy(503), httpx.ConnectError("down")])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_did_not_happen_is_tried_again(reply: Reply, method: str) -> None:
    server = Server(reply, reply)
    async with server.client() as client:
        assert (await client.call(method, "/")).is_success
    assert len(server.asked) == 3


@pytest.mark.parametrize("reply", [busy(500), busy(502), busy(504), httpx.ReadError("cut"), httpx.ReadTimeout("slow")])
@pytest.mark.parametrize(
    ("method", "headers", "calls"),
    [
        ("GET", {}, 2),
        ("PUT", {}, 2),
        ("DELETE", {}, 2),
        ("POST", {"Idempotency-Key": "k"}, 2),
        ("POST", {}, 1),
        ("PATCH", {}, 1),
    ],
)
async def test_what_may_have_happened_is_tried_again_only_where_twice_is_once(
    reply: Reply, method: str, headers: dict[str, str], calls: int
) -> None:
    server = Server(reply)
    async with server.client() as client:
        if calls == 1:
            with pytest.raises(Unknown):
                await client.call(method, "/", headers=headers)
        else:
            assert (await client.call(method, "/", headers=headers)).is_success
    assert len(server.asked) == calls


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 409, 413, 422])
async def test_a_refusal_is_not_tried_again(status: int) -> None:
    server = Server(httpx.Response(status, headers={"Location": "http://elsewhere"}))
    async with server.client() as client:
        with pytest.raises(Permanent, match=str(status)):
            await client.call("GET", "/")
    assert len(server.asked) == 1


async def test_a_refusal_repeats_the_title_and_detail_of_the_problem() -> None:
    async with Server(httpx.Response(404, content=PROBLEM)).client() as client:
        with pytest.raises(Permanent) as refused:
            await client.call("GET", "/requests/r-1?key=hunter2")
    expected = "GET http://server/requests/r-1: 404 There is no such request: r-1 is not yours"
    assert str(refused.value) == expected


async def test_tries_are_bounded() -> None:
    server = Server(*(busy() for _ in range(100)))
    async with server.client() as client:
        with pytest.raises(Transient, match="503"):
            await client.call("GET", "/")
    assert len(server.asked) == 4


@pytest.mark.parametrize("as_date", [False, True])
async def test_a_pause_longer_than_the_deadline_is_not_waited_for(*, as_date: bool) -> None:
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    server = Server(httpx.Response(429, headers={"Retry-After": in_an_hour if as_date else "3600"}))
    async with server.client() as client:
        with pytest.raises(Transient) as busy_error:
            await client.call("GET", "/", deadline=5)
    assert busy_error.value.retry_after == pytest.approx(3600, abs=60)
    assert len(server.asked) == 1


@pytest.mark.parametrize("said", ["", "soon", "-1", "1e9", "\u0663", "Fri, 99 Foo 2026 00:00:00 GMT"])
async def test_a_retry_after_that_says_nothing_is_ignored(said: str) -> None:
    reply = httpx.Response(503, headers=[(b"Retry-After", said.encode())])
    async with Server(reply).client() as client:
        assert (await client.call("GET", "/")).is_success


async def hang(_request: httpx.Request) -> httpx.Response:
    await asyncio.Event().wait()
    return httpx.Response(200)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_deadline_is_for_all_tries_together(method: str) -> None:
    async with HttpClient("http://server", transport=httpx.MockTransport(hang)) as client:
        with pytest.raises(Unknown, match=r"no answer within 0\.05 s"):
            await client.call(method, "/", deadline=0.05)


class Chunks(httpx.AsyncByteStream):
    def __init__(self, *chunks: bytes, cut: bool) -> None:
        self.chunks, self.cut = chunks, cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        if self.cut:
            raise httpx.RemoteProtocolError("peer closed connection")


async def read(client: HttpClient) -> list[bytes]:
    async with client.stream("GET", "/chat/r-1") as response:
        return [chunk async for chunk in response.aiter_raw()]


async def test_a_stream_is_read_as_it_comes() -> None:
    async with Server(httpx.Response(200, stream=Chunks(b"a", b"b", cut=False))).client() as client:
        assert await read(client) == [b"a", b"b"]


async def test_a_stream_that_is_cut_is_not_taken_for_whole() -> None:
    async with Server(httpx.Response(200, stream=Chunks(b"a", cut=True))).client() as client:
        with pytest.raises(Transient, match="the stream was cut"):
            await read(client)


async def test_a_stream_that_is_refused_says_why_and_is_not_tried_again() -> None:
    server = Server(httpx.Response(404, content=PROBLEM), busy())
    async with server.client() as client:
        with pytest.raises(Permanent, match="r-1 is not yours"):
            await read(client)
        with pytest.raises(Transient):
            await read(client)
    assert len(server.asked) == 2

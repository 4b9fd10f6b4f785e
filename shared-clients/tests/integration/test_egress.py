"""Outgoing HTTP over real sockets: no packet leaves for a refused destination, and no answer is too large or too slow.

The audit events of the interpreter count the packets: each connection, datagram and name resolution of this process.
"""

import asyncio
import socket
import sys
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import aiohttp
import httpx
import httpx2
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from shared_clients.egress import (
    AnswerTooLargeError,
    CheckedConnector,
    CheckedTransport,
    Destination,
    EgressPolicy,
    open_session,
    read_answer,
)
from shared_clients.egress.sdk_transport import SdkTransport
from shared_clients.errors import Permanent
from shared_clients.outbound import HttpClient
from shared_clients.telemetry import collector_session
from tests.ssrf_corpus import NAMES, NUMBERS, RESOLVED

PUBLIC = EgressPolicy(public=True)
NETWORK_EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
MAX_ANSWER = 1 << 17
MAX_MEMORY = 16 << 20

type Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Packets:
    """The network calls of this process while a test counts them."""

    def __init__(self) -> None:
        self.counting = False
        self.seen: list[tuple[str, object]] = []
        sys.addaudithook(self._on_event)  # a hook cannot be removed again

    def _on_event(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.counting and event in NETWORK_EVENTS:
            self.seen.append((event, arguments[1] if event == "socket.connect" else arguments[0]))


@pytest.fixture(scope="module")
def packet_counter() -> Packets:
    return Packets()


@pytest.fixture
def packets(packet_counter: Packets) -> Iterator[Packets]:
    packet_counter.seen.clear()
    packet_counter.counting = True
    yield packet_counter
    packet_counter.counting = False


class ScriptedResolver(AbstractResolver):
    """Answers each resolution with the next list of addresses, and the last one again and again."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family
        self.asked.append(host)
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=one,
                port=port,
                family=socket.AF_INET6 if ":" in one else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for one in addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def get_by_aiohttp(url: str, policy: EgressPolicy, resolver: AbstractResolver | None) -> int:
    connector = CheckedConnector(policy, limit=4, resolver=resolver)
    async with (
        open_session(connector, timeout=aiohttp.ClientTimeout(total=60)) as session,
        session.get(url) as answer,
    ):
        await read_answer(answer, at_most=MAX_ANSWER)
        return answer.status


async def get_by_httpx(url: str, policy: EgressPolicy, resolver: AbstractResolver | None) -> int:
    transport = CheckedTransport(policy, resolver=resolver, max_answer=MAX_ANSWER)
    async with httpx.AsyncClient(transport=transport, follow_redirects=True, timeout=60) as client:
        return (await client.get(url)).status_code


async def get_by_httpx2(url: str, policy: EgressPolicy, resolver: AbstractResolver | None) -> int:
    transport = SdkTransport(policy, resolver=resolver, max_answer=MAX_ANSWER)
    async with httpx2.AsyncClient(transport=transport, follow_redirects=True, timeout=60) as client:
        return (await client.get(url)).status_code


CLIENTS = [
    pytest.param(get_by_aiohttp, id="aiohttp"),
    pytest.param(get_by_httpx, id="httpx"),
    pytest.param(get_by_httpx2, id="httpx2"),
]
REFUSALS = (aiohttp.ClientError, httpx.TransportError, httpx.InvalidURL, httpx2.TransportError, httpx2.InvalidURL)
type Get = Callable[[str, EgressPolicy, AbstractResolver | None], Awaitable[int]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncGenerator[str]:
    """Yield the base URL of a server of 127.0.0.1."""
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def answering(head: str, body: bytes = b"") -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        length = "" if "Transfer-Encoding" in head else f"Content-Length: {len(body)}\r\n"
        writer.write(f"HTTP/1.1 {head}\r\n{length}Connection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    return serve


def test_the_corpus_has_at_least_eighty_attacks() -> None:
    assert len({*NUMBERS, *NAMES}) + len(RESOLVED) >= 80


async def test_the_counter_sees_a_connection(packets: Packets) -> None:
    async with server(answering("200 OK")) as url, aiohttp.ClientSession() as session, session.get(url):
        assert [event for event, _ in packets.seen] == ["socket.connect"]


@pytest.mark.parametrize("get", CLIENTS)
async def test_no_packet_leaves_for_an_address_or_name_of_the_private_network(packets: Packets, get: Get) -> None:
    for url in (*NUMBERS, *NAMES):
        for secure in (url, url.replace("http:", "https:")):
            resolver = ScriptedResolver(("127.0.0.1",))
            try:
                status = await get(secure, PUBLIC, resolver)
            except REFUSALS:
                continue
            finally:
                assert packets.seen == [], secure
            pytest.fail(f"{secure} was answered with {status}")


@pytest.mark.parametrize("get", CLIENTS)
@pytest.mark.parametrize("addresses", RESOLVED, ids=lambda addresses: ",".join(addresses) or "none")
async def test_no_packet_leaves_for_a_public_name_with_an_address_that_is_not(
    packets: Packets, get: Get, addresses: tuple[str, ...]
) -> None:
    resolver = ScriptedResolver(addresses)
    with pytest.raises(REFUSALS):
        await get("http://api.example.com/", PUBLIC, resolver)
    assert resolver.asked == ["api.example.com"]
    assert packets.seen == []


@pytest.mark.parametrize("get", CLIENTS)
async def test_a_name_is_resolved_once_and_the_connection_goes_to_the_address_that_was_checked(
    packets: Packets, get: Get
) -> None:
    async with server(answering("200 OK")) as url:
        port = Destination.of(url).port
        policy = EgressPolicy(frozenset({Destination("api.example.com", port)}))
        rebinding = ScriptedResolver(("127.0.0.1",), ("169.254.169.254",))
        assert await get(f"http://api.example.com:{port}/", policy, rebinding) == 200
        assert rebinding.asked == ["api.example.com"]
        assert packets.seen == [("socket.connect", ("127.0.0.1", port))]
        with pytest.raises(REFUSALS):
            await get(f"http://api.example.com:{port}/", policy, rebinding)
        assert len(packets.seen) == 1, "the second answer of the name's server leads nowhere"


@pytest.mark.parametrize("get", [pytest.param(get_by_httpx, id="httpx"), pytest.param(get_by_httpx2, id="httpx2")])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_the_answer_and_is_not_followed(packets: Packets, get: Get, status: int) -> None:
    for target in ("http://169.254.169.254/latest/", "http://127.0.0.1:1/", "//localhost/", "/again"):
        packets.seen.clear()
        async with server(answering(f"{status} Elsewhere\r\nLocation: {target}")) as url:
            assert await get(url, EgressPolicy.of([url]), None) == status
        assert len(packets.seen) == 1, target


@pytest.mark.parametrize("get", CLIENTS)
async def test_another_port_or_host_of_a_configured_server_is_refused(packets: Packets, get: Get) -> None:
    policy = EgressPolicy.of(["http://127.0.0.1:8000/v1", "http://provider:8000"])
    for url in ("http://127.0.0.1:8001/v1", "http://127.0.0.2:8000/v1", "http://provider/", "http://other:8000/"):
        with pytest.raises(REFUSALS):
            await get(url, policy, None)
    assert packets.seen == []


@pytest.mark.parametrize("get", CLIENTS)
async def test_no_setting_makes_a_metadata_service_reachable(packets: Packets, get: Get) -> None:
    url = "http://169.254.169.254/latest/"
    with pytest.raises(REFUSALS):
        await get(url, EgressPolicy.of([url]), None)
    assert packets.seen == []


@pytest.mark.parametrize("get", CLIENTS)
async def test_a_proxy_of_the_environment_is_not_used(
    packets: Packets, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with server(answering("200 OK")) as url:
        assert await get(url, EgressPolicy.of([url]), None) == 200
        assert packets.seen == [("socket.connect", ("127.0.0.1", Destination.of(url).port))]


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with chunks of one byte, which cost their reader most, for as long as they are taken."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        while True:
            writer.write(b"1\r\nx\r\n" * 10_000)
            await writer.drain()
    except ConnectionError:
        writer.close()


@pytest.mark.parametrize("get", CLIENTS)
async def test_an_endless_answer_is_cut_at_the_cap_and_costs_little_memory(get: Get) -> None:
    async with server(endless) as url:
        tracemalloc.start()
        try:
            with pytest.raises((AnswerTooLargeError, httpx.RemoteProtocolError, httpx2.RemoteProtocolError)):
                await get(url, EgressPolicy.of([url]), None)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < MAX_MEMORY


@pytest.mark.parametrize("get", CLIENTS[1:])
async def test_a_compressed_answer_is_refused_unread(get: Get) -> None:
    async with server(answering("200 OK\r\nContent-Encoding: gzip", b"x" * 100)) as url:
        with pytest.raises((httpx.RemoteProtocolError, httpx2.RemoteProtocolError)):
            await get(url, EgressPolicy.of([url]), None)


async def test_a_server_that_sends_nothing_is_left_after_the_read_timeout() -> None:
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()
        writer.close()

    async with server(silent) as url:
        transport = SdkTransport(EgressPolicy.of([url]))
        async with httpx2.AsyncClient(transport=transport, timeout=httpx2.Timeout(None, read=0.05)) as client:
            with pytest.raises(httpx2.ReadTimeout):
                await client.get(url)
        await left.wait()


async def test_a_refused_call_is_permanent_and_says_what_may_be_reached(packets: Packets) -> None:
    async with HttpClient("http://127.0.0.1:1") as client:
        with pytest.raises(Permanent, match=r"127\.0\.0\.2:80 may not be reached.*127\.0\.0\.1:1"):
            await client.call("GET", "http://127.0.0.2/")
    assert packets.seen == []


async def test_spans_go_to_the_collector_alone_without_redirect_or_proxy(
    packets: Packets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with server(answering("307 Elsewhere\r\nLocation: http://127.0.0.1:1/")) as url:
        exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces", session=collector_session(), timeout=5)
        await asyncio.to_thread(exporter.export, [])
        exporter.shutdown()  # type: ignore[no-untyped-call]  # untyped in OpenTelemetry
        connected = [address for event, address in packets.seen if event == "socket.connect"]
        assert connected == [("127.0.0.1", Destination.of(url).port)]

"""The hop over real sockets: unreachable replicas are skipped, broken answers are reported, no call is repeated."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from httpx import ASGITransport, AsyncClient, Response
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from api_gateway.hop import Call, Forwarder, Hop
from local_backends.server import free_port
from service_process.web import create_app
from shared_clients.identity import IDENTITY_HEADER, Issuer, Verifier
from tests.simulators.asking import somebody
from tests.simulators.calling import KEY, trusted

NAME = "request-manager"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: x\r\nConnection: keep-alive\r\nX-A: 1\r\nX-A: 2\r\n\r\nok"

type Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Replica:
    """A small server that records the requests it gets and answers with `serve`."""

    serve: Serve
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
                length = next(
                    (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0
                )
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(length))
                await self.serve(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running(*serving: Serve) -> AsyncGenerator[list[Replica]]:
    async with AsyncExitStack() as stack:
        replicas = [Replica(serve) for serve in serving]
        for replica in replicas:
            server = await asyncio.start_server(replica, "127.0.0.1", 0)
            stack.callback(server.close)
            replica.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield replicas


async def whole(writer: asyncio.StreamWriter) -> None:
    writer.write(WHOLE)


async def cut_before_the_answer(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def cut_in_the_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    writer.close()


async def cut_in_the_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
    writer.close()


async def garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    writer.close()


async def nothing(writer: asyncio.StreamWriter) -> None:
    """Keep the connection and send nothing."""


async def nothing_of_the_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")


async def call(
    forwarder: Forwarder, method: str = "POST", path: str = "/api/v1/requests", body: bytes = b"{}"
) -> Response:
    """Call through a gateway that has only this one service."""
    app: Starlette = create_app("gateway", routers=[], ready=lambda: asyncio.sleep(0))
    hop = Hop({NAME: forwarder}, Issuer("api-gateway", KEY))

    async def forward(scope: Scope, receive: Receive, send: Send) -> None:
        bare, _, query = path.partition("?")
        headers = [(b"content-type", b"application/json"), (b"x-mine", b"1"), (b"cookie", b"secret")]
        answer = await hop.call(NAME, somebody(), Call(method, bare, body, query.encode(), headers))
        await answer.response()(scope, receive, send)

    app.mount("/", forward)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://gateway") as client:
        return await client.request(method, "/")


async def test_call_reaches_the_service_and_its_answer_comes_back() -> None:
    async with running(whole) as [replica], Forwarder(NAME, [replica.url]) as forwarder:
        answer = await call(forwarder, path="/api/v1/requests?wait=1&x=%2B", body=b'{"content": "hi"}')
    assert (answer.status_code, answer.content) == (200, b"ok")
    assert answer.headers.get_list("x-a") == ["1", "2"]
    assert not {"connection", "date", "transfer-encoding"} & set(answer.headers)
    first, *lines = replica.heads[0].rstrip().split("\r\n")
    names = {line.partition(":")[0].lower() for line in lines}
    assert first == "POST /api/v1/requests?wait=1&x=%2B HTTP/1.1"
    assert {"x-mine", "content-type", "flotilla-identity"} <= names
    assert not {"cookie", "authorization"} & names
    assert len(names) == len(lines), "no header twice"
    assert replica.bodies == [b'{"content": "hi"}']


@pytest.mark.parametrize("path", ["/api/v1/requests/a b", "/api/v1/requests/ü?x=1", "/api/v1/requests/a?b#c", "/a/%41"])
async def test_identity_is_valid_for_the_path_that_arrives_with_any_characters(path: str) -> None:
    seen: list[str] = []
    verifier = Verifier(NAME, trusted(NAME))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        token = dict(scope["headers"])[IDENTITY_HEADER.lower().encode()].decode()
        verifier.verify(token, scope["method"], scope["path"])
        seen.append(scope["path"])

    async with running(whole) as [replica], Forwarder(NAME, [replica.url]) as forwarder:
        hop = Hop({NAME: forwarder}, Issuer("api-gateway", KEY))
        await hop.call(NAME, somebody(), Call("GET", path))
    raw, headers = replica.heads[0].split(" ")[1], replica.heads[0].split("\r\n")[1:]
    token = next(line.partition(": ")[2] for line in headers if line.lower().startswith("flotilla-identity"))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://service") as client:
        with pytest.raises(AssertionError):  # the app answers nothing; it has only to believe the identity
            await client.get(raw, headers={IDENTITY_HEADER: token})
    assert seen == [path]


async def test_unreachable_replica_is_skipped_and_the_others_share_the_calls() -> None:
    async with running(whole, whole) as [one, two]:
        away = f"http://127.0.0.1:{free_port()}"
        async with Forwarder(NAME, [away, one.url, two.url]) as forwarder:
            answers = [await call(forwarder) for _ in range(6)]
            assert forwarder._next_urls()[-1] == away
    assert {answer.status_code for answer in answers} == {200}
    assert len(one.heads) + len(two.heads) == 6
    assert min(len(one.heads), len(two.heads)) >= 2


async def test_service_without_a_reachable_replica_is_unavailable_and_nothing_was_done() -> None:
    async with Forwarder(NAME, [f"http://127.0.0.1:{free_port()}" for _ in range(2)]) as forwarder:
        answer = await call(forwarder)
    assert "nothing was done" in problem(answer, "unavailable")


def problem(answer: Response, kind: str) -> str:
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["type"] == f"urn:flotilla:problem:{kind}"
    return str(answer.json()["detail"])


@pytest.mark.parametrize("serve", [cut_before_the_answer, cut_in_the_headers, cut_in_the_body, garbage])
@pytest.mark.parametrize(("method", "most"), [("POST", 1), ("PATCH", 1), ("GET", 2), ("DELETE", 2)])
async def test_answer_that_breaks_off_is_a_problem_and_a_change_is_not_repeated(
    serve: Serve, method: str, most: int
) -> None:
    async with running(serve, whole) as [broken, other], Forwarder(NAME, [broken.url, other.url]) as forwarder:
        answer = await call(forwarder, method)
    assert "may have been carried out" in problem(answer, "outcome-unknown")
    assert len(broken.heads) <= most, "aiohttp repeats idempotent methods once"
    assert other.heads == []


@pytest.mark.parametrize("serve", [nothing, nothing_of_the_body])
async def test_answer_that_takes_too_long_is_a_problem(serve: Serve) -> None:
    async with AsyncExitStack() as stack:
        silent, other = await stack.enter_async_context(running(serve, whole))
        forwarder = await stack.enter_async_context(Forwarder(NAME, [silent.url, other.url], seconds=0.2))
        answer = await call(forwarder)
    assert "may have been carried out" in problem(answer, "outcome-unknown")
    assert (len(silent.heads), len(other.heads)) == (1, 0)


async def test_replica_at_a_forbidden_address_is_never_connected_to() -> None:
    async with running(whole) as [replica], Forwarder(NAME, ["http://169.254.169.254", replica.url]) as forwarder:
        for _ in range(2):
            assert (await call(forwarder)).status_code == 200
        assert forwarder._next_urls()[-1] == "http://169.254.169.254", "it is tried last, like one that is away"


async def test_redirect_is_passed_on_and_not_followed() -> None:
    async def redirect(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\n\r\n")

    async with running(redirect) as [replica], Forwarder(NAME, [replica.url]) as forwarder:
        answer = await call(forwarder, "GET")
    assert (answer.status_code, answer.headers["location"]) == (307, "http://127.0.0.1:1/elsewhere")


async def test_incomplete_body_of_a_leaving_client_is_not_forwarded() -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"content": "all of ', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError(f"the client has left and cannot get {message}")

    async with running(whole) as [replica], Forwarder(NAME, [replica.url]) as forwarder:
        scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": []}
        with pytest.raises(ClientDisconnect):
            await forwarder(scope, receive, send)
    assert replica.heads == []


async def test_connections_are_kept_for_the_next_call() -> None:
    connections = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await Replica(whole)(reader, writer)

    server = await asyncio.start_server(counted, "127.0.0.1", 0)
    async with server, Forwarder(NAME, [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"]) as forwarder:
        for _ in range(3):
            assert (await call(forwarder)).status_code == 200
    assert connections == 1

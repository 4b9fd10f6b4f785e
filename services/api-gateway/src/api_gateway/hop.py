"""The hop to a service: always ASGI. In one process the services' apps are called directly; elsewhere a `Forwarder`
stands in for each. Every call carries a freshly signed identity, and none that a client sent along.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote
from uuid import UUID

import aiohttp
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared_clients.identity import IDENTITY_HEADER, Issuer
from shared_clients.tracing import inject
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal

log = structlog.get_logger()

NOT_PASSED_ON: Final = frozenset(
    {
        IDENTITY_HEADER.lower().encode(),
        b"authorization",
        b"cookie",
        b"connection",
        b"keep-alive",
        b"te",
        b"upgrade",
        b"trailer",
    }
    | {b"transfer-encoding", b"proxy-authorization", b"proxy-connection", b"host", b"traceparent", b"tracestate"}
    | {b"expect", b"date"}
)
"""Headers that end at the gateway: credentials, hop-by-hop ones, and what we set ourselves."""

AWAY_SECONDS: Final = 5.0
"""How long a replica that could not be reached is tried last."""

ROUTES: Final = {"/api/v1/requests": "request-manager", "/api/v1/sessions": "agent-service"}
"""Which service answers which part of the API."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A service's whole answer."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes

    def response(self) -> Response:
        """Return it as it came."""
        response = Response(self.body, self.status)
        response.raw_headers = list(self.headers)
        return response


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a service."""

    method: str
    path: str
    body: bytes = b""
    query: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()
    sessions: frozenset[UUID] = frozenset()


class Hop:
    """The way to the services.

    Args:
        services: an ASGI app for each service's name.
        issuer: signs who asks.
    """

    def __init__(self, services: Mapping[str, ASGIApp], issuer: Issuer) -> None:
        self._services = services
        self._issuer = issuer

    async def call(self, service: str, principal: Principal, call: Call) -> Answer:
        """Call a service and return its whole answer."""
        sent = _Collector(call.body)
        await self._services[service](self._scope(service, principal, call), sent.receive, sent.send)
        return sent.answer()

    def forward(self, service: str, principal: Principal, request: Request) -> Response:
        """Return a response that is the service's own, passed through as it comes."""
        scope = request.scope
        call = Call(request.method, scope["path"], query=scope["query_string"], headers=scope["headers"])
        return _Forwarded(self._services[service], self._scope(service, principal, call))

    def _scope(self, service: str, principal: Principal, call: Call) -> Scope:
        token = self._issuer.issue(
            principal, audience=service, method=call.method, path=call.path, sessions=call.sessions
        )
        ours = {IDENTITY_HEADER.lower(): token, "host": service, **inject()}
        passed = [(name, value) for name, value in call.headers if name not in NOT_PASSED_ON]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "http",
            "method": call.method,
            "path": call.path,
            "raw_path": call.path.encode(),
            "query_string": call.query,
            "root_path": "",
            "headers": [*passed, *((name.encode(), value.encode()) for name, value in ours.items())],
            "client": None,
            "server": None,
            "state": {},
        }


class _Collector:
    """Plays the client of an ASGI app, and keeps what it answers."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._status = 500
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._chunks: list[bytes] = []

    async def receive(self) -> Message:
        if self._body is None:
            await asyncio.Event().wait()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body":
            self._chunks.append(message.get("body", b""))

    def answer(self) -> Answer:
        return Answer(self._status, self._headers, b"".join(self._chunks))


class _Forwarded(Response):
    """Lets another app answer, with the client's own body."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        super().__init__()
        self._app = app
        self._scope = scope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await self._app(self._scope, receive, send)


class Forwarder:
    """A service in other processes, as an ASGI app.

    Args:
        name: of the service, for errors.
        urls: base URLs of its replicas, called in turn; one that refuses the connection is passed over for a while.
        seconds: how long an answer may take to begin; longer than any `wait`.
    """

    def __init__(self, name: str, urls: Sequence[str], *, seconds: float = 90.0) -> None:
        self._name = name
        self._urls = list(urls)
        self._away_until: dict[str, float] = {}
        self._timeout = aiohttp.ClientTimeout(total=seconds, connect=2.0)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=512, keepalive_timeout=20)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, auto_decompress=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._call(scope, await _body(receive))
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    def _in_turn(self) -> list[str]:
        """Return the replicas, each time another one first, and last those that could not be reached of late."""
        now = time.monotonic()
        order = sorted(self._urls, key=lambda url: self._away_until.get(url, 0.0) > now)
        self._urls.append(self._urls.pop(0))
        return order

    async def _call(self, scope: Scope, body: bytes) -> Answer:
        """Make the call on the first replica that takes the connection, and return its whole answer.

        Only where no connection came about is it tried elsewhere: once bytes have gone out it may have happened.
        """
        assert self._session is not None, "the forwarder is not open"
        query = scope["query_string"].decode("latin-1")
        path = quote(scope["path"]) + (f"?{query}" if query else "")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        for url in self._in_turn():
            try:
                async with self._session.request(
                    scope["method"], f"{url}{path}", data=body, headers=headers, allow_redirects=False
                ) as answer:
                    passed = [
                        (name.lower(), value) for name, value in answer.raw_headers if name.lower() not in NOT_PASSED_ON
                    ]
                    return Answer(answer.status, passed, await answer.read())
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                log.warning("replica_unreachable", callee=self._name, url=url)
                self._away_until[url] = time.monotonic() + AWAY_SECONDS
            except (aiohttp.ClientError, TimeoutError) as error:
                log.warning("hop_failed", callee=self._name, url=url, error=type(error).__name__)
                detail = f"{self._name} broke off; whether the call took effect is not known."
                raise Problem(Problems.UNAVAILABLE, detail, headers={"Retry-After": "1"}) from error
        detail = f"{self._name} cannot be reached; nothing was done."
        raise Problem(Problems.UNAVAILABLE, detail, headers={"Retry-After": "1"})


async def _body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)

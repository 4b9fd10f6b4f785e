"""The hop from the gateway to a service, always over ASGI and always with a freshly signed identity.

`Hop` builds the ASGI scope of a call and runs a service's app with it. In one process that app is the service itself;
elsewhere it is a `Forwarder`, which sends the call over HTTP to one of the service's replicas. Bodies flow through both
ways, as fast as the slower side reads them.
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
from yarl import URL

from api_gateway.body_streams import HELD_BYTES, RequestBody, while_client_stays
from service_process.web import repeat_advice
from shared_clients.egress import CheckedConnector, DestinationRefusedError, EgressPolicy, open_session
from shared_clients.headers import lines_of, tokens
from shared_clients.identity import IDENTITY_HEADER, Issuer
from shared_clients.tracing import inject
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal

log = structlog.get_logger()

NOT_FORWARDED: Final = frozenset(
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
"""Headers that end at the gateway: credentials, hop-by-hop headers, and headers that the gateway sets itself."""

_OF_THE_BODY: Final = frozenset({b"content-length", b"content-type", b"content-encoding"})

QUERY_CHARACTERS: Final = "%/?:@!$&'()*+,;=-._~"
"""Characters of a query (RFC 3986) that are sent as they are; `%` stands for what the client encoded itself."""
MAX_ANSWER: Final = 32 << 20
"""Bytes of an answer that the gateway itself reads; a full page of requests with their contents has fewer."""
UNREACHABLE_SECONDS: Final = 5.0
"""How long a replica that could not be reached is tried after all others."""

type Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a service.

    Attributes:
        sessions: sessions that the gateway vouches for as the caller's own.
    """

    method: str
    path: str
    body: bytes = b""
    query: bytes = b""
    headers: Headers = ()
    sessions: frozenset[UUID] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """The complete response of a service."""

    status: int
    headers: Headers
    body: bytes

    def response(self) -> Response:
        """Return the same response for the gateway's client."""
        response = Response(self.body, self.status)
        response.raw_headers = list(self.headers)
        return response


class Hop:
    """Calls services on behalf of a caller.

    Args:
        services: an ASGI app for each service's name.
        issuer: signs the caller's identity.
        max_answer: bytes of an answer that `call` holds.
    """

    def __init__(self, services: Mapping[str, ASGIApp], issuer: Issuer, *, max_answer: int = MAX_ANSWER) -> None:
        self._services = services
        self._issuer = issuer
        self._max_answer = max_answer

    async def call(self, service: str, caller: Principal, call: Call) -> Answer:
        """Call a service and return its complete response.

        Raises:
            Problem: INTERNAL: the answer is too large. OUTCOME_UNKNOWN or UNAVAILABLE: as `Forwarder` raises them.
        """
        scope = self._scope(service, caller, call)
        return await _run_app(self._services[service], scope, call.body, max_answer=self._max_answer)

    def forward(self, service: str, caller: Principal, request: Request) -> Response:
        """Return a response that a service writes itself, from the client's own request."""
        scope = request.scope
        call = Call(request.method, scope["path"], query=scope["query_string"], headers=scope["headers"])
        return _ForwardedResponse(self._services[service], self._scope(service, caller, call))

    def _scope(self, service: str, caller: Principal, call: Call) -> Scope:
        token = self._issuer.issue(caller, audience=service, method=call.method, path=call.path, sessions=call.sessions)
        added = {IDENTITY_HEADER.lower(): token, "host": service, **inject()}
        forwarded = _end_to_end(call.headers)
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
            "headers": [*forwarded, *((name.encode(), value.encode()) for name, value in added.items())],
            "client": None,
            "server": None,
            "state": {},
        }


async def _run_app(app: ASGIApp, scope: Scope, body: bytes, *, max_answer: int) -> Answer:
    """Run an ASGI app as its only client, and return its complete response."""
    requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    start: Message = {"status": 500, "headers": ()}
    chunks: list[bytes] = []
    size = 0

    async def receive() -> Message:
        if not requests:
            await asyncio.Event().wait()  # an app that listens for a disconnect waits until it is cancelled
        return requests.pop()

    async def send(message: Message) -> None:
        nonlocal size
        if message["type"] == "http.response.start":
            start.update(message)
        elif message["type"] == "http.response.body":
            size += len(message.get("body", b""))
            if size > max_answer:
                detail = f"The answer of a service to {scope['path'][:200]} has more than {max_answer} bytes."
                raise Problem(Problems.INTERNAL, detail)
            chunks.append(message.get("body", b""))

    try:
        await app(scope, receive, send)
    except ClientDisconnect as error:  # the only client is this function: the answer broke off after its beginning
        detail = f"The answer of a service broke off: {repeat_advice(scope)}."
        raise Problem(Problems.OUTCOME_UNKNOWN, detail, headers={"Retry-After": "1"}) from error
    return Answer(start["status"], list(start["headers"]), b"".join(chunks))


class _ForwardedResponse(Response):
    """A response that a service's app writes, in a scope of its own but with the client's body."""

    def __init__(self, app: ASGIApp, service_scope: Scope) -> None:
        super().__init__()
        self._app = app
        self._service_scope = service_scope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await self._app(self._service_scope, receive, send)


class Forwarder:
    """An ASGI app that forwards calls to a service in another process.

    Args:
        name: of the service, for error messages.
        urls: base URLs of its replicas, called in turn.
        seconds: the longest time until an answer begins, and then between two parts of it; longer than the longest
            `wait`.
    """

    def __init__(self, name: str, urls: Sequence[str], *, seconds: float = 90.0) -> None:
        self._name = name
        self._urls = list(urls)
        self._unreachable_until: dict[str, float] = {}
        self._seconds = seconds
        self._timeout = aiohttp.ClientTimeout(total=None, connect=2.0, sock_read=seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = CheckedConnector(EgressPolicy.of(self._urls), limit=512)
        self._session = open_session(connector, timeout=self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = RequestBody(receive)
        await body.read_ahead()
        await while_client_stays(body, self._try_replicas(scope, body, send))

    async def _try_replicas(self, scope: Scope, body: RequestBody, send: Send) -> None:
        """Pass on the answer of the first replica that accepts the connection.

        Only a failed connection leads to another replica: once bytes have been sent, the call may have taken effect.
        """
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        for url in self._next_urls():
            try:
                await self._request(url, scope, body, send_and_note)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, DestinationRefusedError):
                log.warning("replica_unreachable", callee=self._name, url=url)
                self._unreachable_until[url] = time.monotonic() + UNREACHABLE_SECONDS
            except (aiohttp.ClientError, TimeoutError) as error:
                if body.failure is not None:
                    raise body.failure from None
                log.warning("hop_failed", callee=self._name, url=url, error=type(error).__name__, started=started)
                if started:  # only a broken connection shows the client that the response is incomplete
                    raise ClientDisconnect from error
                detail = f"The answer of {self._name} broke off or took too long: {repeat_advice(scope)}."
                raise Problem(Problems.OUTCOME_UNKNOWN, detail, headers={"Retry-After": "1"}) from error
            else:
                return
        detail = (
            f"No replica of {self._name} can be reached, so nothing was done. "
            "Send the same request again after the number of seconds in Retry-After."
        )
        raise Problem(Problems.UNAVAILABLE, detail, headers={"Retry-After": "1"})

    def _next_urls(self) -> list[str]:
        """Return all replicas in the order to try them: another one first each time, the unreachable ones last."""
        now = time.monotonic()
        order = sorted(self._urls, key=lambda url: self._unreachable_until.get(url, 0.0) > now)
        self._urls.append(self._urls.pop(0))
        return order

    async def _request(self, url: str, scope: Scope, body: RequestBody, send: Send) -> None:
        assert self._session is not None, "the forwarder is not open"
        query = quote(scope["query_string"], safe=QUERY_CHARACTERS)
        path = quote(scope["path"]) + (f"?{query}" if query else "")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        async with (
            asyncio.timeout(self._seconds) as until_answer,
            self._session.request(
                scope["method"], _unresolved(url, path), data=body.content(), headers=headers, allow_redirects=False
            ) as response,
        ):
            until_answer.reschedule(None)
            await _pass_on(response, body, send)


async def _pass_on(response: aiohttp.ClientResponse, body: RequestBody, send: Send) -> None:
    """Send an answer to the client: a small one whole, so that one that breaks off can still become a problem."""
    forwarded = _end_to_end([(name.lower(), value) for name, value in response.raw_headers])
    start = {"type": "http.response.start", "status": response.status, "headers": forwarded}
    if response.content_length is not None and response.content_length <= HELD_BYTES:
        whole = await response.read()
        body.answered = True
        await send(start)
        await send({"type": "http.response.body", "body": whole, "more_body": False})
        return
    await send(start)
    async for part in response.content.iter_any():
        await send({"type": "http.response.body", "body": part, "more_body": True})
    body.answered = True
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _end_to_end(headers: Headers) -> Headers:
    """Return the headers that are forwarded: none of `NOT_FORWARDED`, and none that Connection names (RFC 9110, 7.6.1).

    The headers of the body stay, whatever Connection names, because the body is forwarded.
    """
    named = {name.encode("latin-1") for name in tokens(lines_of(headers, b"connection"))} - _OF_THE_BODY
    return [(name, value) for name, value in headers if name not in NOT_FORWARDED and name not in named]


def _unresolved(base: str, path: str) -> URL:
    """Return an address whose path is sent to the letter; by default the client resolves dot segments in it."""
    return URL(f"{base}{path}", encoded=True)

"""The middleware of every request: it checks the headers, limits the body, and turns a bug into a 500.

It is plain ASGI, because every request passes it: it reads the headers once, and wraps `receive` only for a body. The
bytes of a body are counted as they arrive, whatever Content-Length says, and have a deadline. Both limits raise from
`receive`, so that the error handlers of the app answer the client. FastAPI's own `max_body_size` answers in plain text
and outside of all error handlers, so it is not used.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog
from opentelemetry import trace
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service_process.web.problems import problem_response
from shared_clients import tracing
from shared_clients.bus.http_codec import MAX_BODY
from shared_clients.headers import content_length, lines_of, media_type, tokens
from shared_models.problems import Problem, Problems

log = structlog.get_logger()

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The limits of one request.

    Attributes:
        body_bytes: of the body; the 256 KiB of an event, and a little for the members around the text.
        receive_seconds: from the headers to the last byte of the body.
        ready_seconds: of a readiness check; a slower dependency counts as down.
        events_at: the one path whose bodies may have any media type; their limit is the bus's.
        json_only: whether a body at another path has to be JSON; a broker receives events at any path.
    """

    body_bytes: int = 262_144 + 16_384
    receive_seconds: float = 30.0
    ready_seconds: float = 2.0
    events_at: str = "/events"
    json_only: bool = True


class RequestGuard:
    """ASGI middleware: media type, size and deadline of bodies, NUL in addresses, and the 500 for a bug."""

    def __init__(self, app: ASGIApp, limits: BodyLimits, limits_at: Mapping[str, BodyLimits]) -> None:
        self._app = app
        self._limits = limits
        self._limits_at = {limits.events_at: replace(limits, body_bytes=MAX_BODY), **limits_at}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = self._limits_at.get(scope["path"], self._limits)
        try:
            has_body = _check_head(scope, limits)
        except Problem as problem:
            await problem_response(scope, problem)(scope, receive, send)
            return
        if has_body:
            receive = _LimitedBody(receive, limits).receive
        if scope["method"] == "HEAD":
            scope, send = _as_get(scope, send)
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except ClientDisconnect:
            return
        except Exception as error:  # the outermost edge of a request: a bug becomes a 500 with a trace id
            trace_id = _report(scope, error)
            if started:
                raise  # only a broken connection shows the client that the response is incomplete
            detail = "the service could not finish; name the trace_id when you report it"
            response = problem_response(scope, Problem(Problems.INTERNAL, detail), trace_id)
            await response(scope, receive, send)


class _LimitedBody:
    """The `receive` of a request with a body, with the limits of that body."""

    def __init__(self, receive: Receive, limits: BodyLimits) -> None:
        self._receive = receive
        self._limits = limits
        self._deadline = asyncio.get_running_loop().time() + limits.receive_seconds
        self._bytes = 0
        self._complete = False

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            detail = f"the body has to arrive within {self._limits.receive_seconds:g} s"
            raise HTTPException(408, detail, {"Connection": "close"}) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._limits.body_bytes:
            raise HTTPException(413, _too_large(self._limits))
        self._complete = not message.get("more_body", False)
        return message


def _as_get(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """Return a HEAD request as a GET, whose response is sent without its body (RFC 9110, 9.3.2).

    A response that goes on, such as a stream, ends with its first bytes.
    """
    get = {**scope, "method": "GET"}

    async def send_head(message: Message) -> None:
        if message["type"] != "http.response.body":
            scope.update({key: get[key] for key in ("route",) if key in get})
            await send(message)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if message.get("more_body", False):
            raise ClientDisconnect

    return get, send_head


def _check_head(scope: Scope, limits: BodyLimits) -> bool:
    """Check the address and the headers of a request; tell whether it has a body.

    Raises:
        Problem: the request is refused because of its address or its headers.
    """
    names = {name for name, _ in scope["headers"]}
    length = 0
    if b"content-length" in names:
        declared = content_length(lines_of(scope["headers"], b"content-length"))
        length = limits.body_bytes + 1 if declared is None else declared
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise Problem(
            Problems.INVALID_PARAMETER, "the address holds the character NUL (%00), which cannot be stored; remove it"
        )
    if length > limits.body_bytes:
        raise Problem(Problems.BODY_TOO_LARGE, _too_large(limits))
    if b"content-encoding" in names and set(tokens(lines_of(scope["headers"], b"content-encoding"))) - {"identity"}:
        raise Problem(Problems.UNSUPPORTED_MEDIA_TYPE, "a body has to be sent without Content-Encoding")
    has_body = b"transfer-encoding" in names or length > 0
    any_media = scope["method"] in _SAFE or scope["path"] == limits.events_at or not limits.json_only
    if has_body and not any_media and not _is_json(lines_of(scope["headers"], b"content-type")):
        raise Problem(Problems.UNSUPPORTED_MEDIA_TYPE, "a body needs the header Content-Type: application/json")
    return has_body


def _is_json(content_types: list[str]) -> bool:
    return content_types == [_JSON] or (len(content_types) == 1 and media_type(content_types[0]).name == _JSON)


def _too_large(limits: BodyLimits) -> str:
    return f"the body may have {limits.body_bytes} bytes at most"


def _report(scope: Scope, error: Exception) -> str:
    """Log a bug with its stack, mark the span, and return the trace id under which both are found."""
    trace_id = tracing.trace_id()
    trace.get_current_span().set_attribute("error.type", type(error).__qualname__)
    log.error("request_crashed", method=scope["method"], path=scope["path"][:200], trace_id=trace_id, exc_info=error)
    return trace_id

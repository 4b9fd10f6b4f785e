"""One client's connection, with the limits that uvicorn lacks.

uvicorn waits for ever for the headers of a request and accepts any number of them, so that one byte a minute keeps a
connection open. Here a client has ten seconds for each of these: its first bytes, the headers of a request, and the
rest of a body after the answer has been sent. (`web.request_guard` limits the time of a body that a route reads.)

uvicorn also waits for ever for a client that does not read. Here this process and the kernel keep only a few bytes for
a client, and cut the connection when the client has read none of them for half a minute. The client of a stream
resumes after its last frame. When there are too many connections, only probes are answered.
"""

import asyncio
import socket
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import structlog
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service_process import metrics
from shared_clients import tracing
from shared_clients.headers import WHITE_SPACE
from shared_models.problems import ProblemKind, Problems

log = structlog.get_logger()

WAIT_SECONDS: Final = 10.0
MAX_HEAD_BYTES: Final = 32_768
"""The most bytes of a request line and its headers, in one read or in several."""
MAX_HEADERS: Final = 128
STALL_SECONDS: Final = 30.0
"""How long a client may read nothing of a response that waits for it."""
UNSENT_BYTES: Final = 4_096
"""The most bytes that wait for a client in this process, and again in the kernel, in addition to one write."""
MAX_CONNECTIONS: Final = 4096
"""Connections of one process; they stay below the usual soft limit of open files in a container."""
SPARE_CONNECTIONS: Final = 64
"""Further connections that are for probes only; other requests on them get 503 and Retry-After."""
_PROBE_PATHS: Final = frozenset({b"/livez", b"/readyz", b"/metrics"})
_WHITE_SPACE: Final = WHITE_SPACE.encode()
_HEAD_TOO_LARGE: Final = f"The request line and the headers may have {MAX_HEAD_BYTES} bytes together."


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection, which is cut when the client stops in the middle of an exchange."""

    wait_seconds = WAIT_SECONDS
    stall_seconds = STALL_SECONDS
    max_connections = MAX_CONNECTIONS
    _request_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _unfinished_bytes = 0
    _surplus = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it so
        super().connection_made(transport)
        _limit_unsent_bytes(transport)
        self._surplus = len(self.connections) > self.max_connections
        if len(self.connections) > self.max_connections + SPARE_CONNECTIONS:
            self._refuse(Problems.OVERLOADED.value, "This process has as many connections as it can serve.")
        else:
            self._start_request_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_request_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the timer of a client that does not read its response."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self.stall_seconds, self._abort, "reading")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def data_received(self, data: bytes) -> None:
        awaited_head = _between_requests(self.cycle)
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            self._cancel_request_timer()  # it is a WebSocket now, with deadlines of its own
            return
        if self.transport.is_closing() or not _between_requests(self.cycle):
            return
        if awaited_head:
            self._unfinished_bytes += len(data)
        if self._unfinished_bytes > MAX_HEAD_BYTES:
            self.send_400_response(_HEAD_TOO_LARGE)
        elif self._request_timer is None:
            self._start_request_timer()

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        _check_head(self._head_bytes)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, without the white space after its value, which the parser leaves there."""
        self._head_bytes += len(name) + len(value) + len(": \r\n")
        _check_head(self._head_bytes)
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError(name)  # the parser answers this exception with 400
        super().on_header(name, value.strip(_WHITE_SPACE))

    def on_headers_complete(self) -> None:
        self._cancel_request_timer()
        self._unfinished_bytes = 0
        if self.parser.should_upgrade() and _has_body(self.headers):
            # The parser reads no body after such a head, and a request without its body would wait until it is cut.
            self.send_400_response("A request with a body cannot change the protocol: leave out Upgrade.")
            return
        if self._surplus and self.url.partition(b"?")[0] not in _PROBE_PATHS:
            self._refuse(Problems.OVERLOADED.value, "This process has as many connections as it can serve.")
            return
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if _answered(self.cycle) and self.cycle.more_body:
            self._start_request_timer()

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()
        if _answered(self.cycle):
            self.cycle.more_body = False
            self._start_request_timer()

    def send_400_response(self, msg: str) -> None:
        if self.transport.is_closing():
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            msg = _HEAD_TOO_LARGE
        log.info("request_unreadable", detail=msg, trace_id=tracing.trace_id())
        self._refuse(Problems.BAD_REQUEST.value, f"{msg} Expected HTTP/1.1 with at most {MAX_HEADERS} headers.")

    def _refuse(self, kind: ProblemKind, detail: str) -> None:
        """Answer and close without the app, because there is no request that the app could handle."""
        members = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": detail}
        body = to_json({**members, "instance": "", "trace_id": tracing.trace_id(), "errors": []})
        phrase = HTTPStatus(kind.status).phrase
        retry_after = "retry-after: 2\r\n" if kind.status == 503 else ""
        head = (
            f"HTTP/1.1 {kind.status} {phrase}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\n{retry_after}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _start_request_timer(self) -> None:
        self._cancel_request_timer()
        self._request_timer = self.loop.call_later(self.wait_seconds, self._abort, "a request")

    def _abort(self, awaited: str) -> None:
        metrics.CONNECTIONS_CUT.labels(awaited).inc()
        self.transport.abort()

    def _cancel_request_timer(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None


def _limit_unsent_bytes(transport: asyncio.Transport) -> None:
    """Limit the bytes that wait for a client, so that a client that does not read is noticed and costs little.

    The bytes in transit to a client that reads are not limited by this, but by the congestion window.
    """
    transport.set_write_buffer_limits(high=UNSENT_BYTES)
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def _check_head(size: int) -> None:
    if size > MAX_HEAD_BYTES:
        raise ValueError(_HEAD_TOO_LARGE)  # the parser turns it into the 400 of an unreadable request


def _answered(latest: RequestResponseCycle | None) -> bool:
    return latest is not None and latest.response_complete


def _between_requests(latest: RequestResponseCycle | None) -> bool:
    return latest is None or (latest.response_complete and not latest.more_body)

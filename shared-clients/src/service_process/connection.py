"""One client's connection, with the bounds that uvicorn leaves open.

uvicorn waits for ever for a request's headers and takes any number of them: one byte a minute pins a connection. Here a
client has ten seconds for each of: its first bytes, the headers of a request, and the rest of a body that nobody
reads any more because the answer has been sent. (A body that is being read has its deadline in `web.edge`.)

It also waits for ever for a client that does not read. Here little is kept for it, by us and by the kernel, and it is
cut when that has not moved for half a minute; a stream's client goes on where it was, for what it has was numbered.
Connections are counted, and beyond their number only probes are answered.
"""

import asyncio
import socket
from http import HTTPStatus
from typing import Final

import structlog
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service_process import metrics
from shared_clients import tracing
from shared_models.problems import ProblemKind, Problems

log = structlog.get_logger()

WAIT_SECONDS: Final = 10.0
HEAD_BYTES: Final = 32_768
"""Of a request line and headers that need more than one read; one read brings at most 256 KiB."""
MAX_HEADERS: Final = 128
STALL_SECONDS: Final = 30.0
"""How long a client may leave what was written for it where it is."""
UNSENT_BYTES: Final = 4_096
"""Kept for a client that does not read, once in this process and once in the kernel, and one write more."""
MAX_CONNECTIONS: Final = 4096
"""Of one process; a container's usual soft limit of open files leaves room for them."""
SPARE_CONNECTIONS: Final = 64
"""Beyond, for probes alone; who asks for something else on one of these is told to come back."""
PROBES: Final = frozenset({b"/livez", b"/readyz", b"/metrics"})


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection, cut when the client does not go on with what it began."""

    wait_seconds = WAIT_SECONDS
    stall_seconds = STALL_SECONDS
    max_connections = MAX_CONNECTIONS
    _cut: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _surplus = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it so
        super().connection_made(transport)
        _keep_little(transport)
        self._surplus = len(self.connections) > self.max_connections
        if len(self.connections) > self.max_connections + SPARE_CONNECTIONS:
            self._refuse(Problems.OVERLOADED.value, "This process has as many connections as it can serve.")
        else:
            self._await_client()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_went_on()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Take note that the client does not read what it asked for."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stall_seconds, self._abort, "reading")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def data_received(self, data: bytes) -> None:
        awaited_head = _between_requests(self.cycle)
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            self._client_went_on()  # it is a WebSocket now, with deadlines of its own
            return
        if self.transport.is_closing() or not _between_requests(self.cycle):
            return
        if awaited_head:
            self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self.send_400_response(f"request line and headers may have {HEAD_BYTES} bytes together")
        elif self._cut is None:
            self._await_client()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError(name)  # the parser turns it into the 400 of an unreadable request
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._client_went_on()
        self._head_bytes = 0
        if self._surplus and self.url not in PROBES:
            self._refuse(Problems.OVERLOADED.value, "This process has as many connections as it can serve.")
            return
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if _answered(self.cycle) and self.cycle.more_body:
            self._await_client()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if _answered(self.cycle):
            self.cycle.more_body = False
            self._await_client()

    def send_400_response(self, msg: str) -> None:
        if self.transport.is_closing():
            return
        log.info("request_unreadable", detail=msg, trace_id=tracing.trace_id())
        self._refuse(Problems.BAD_REQUEST.value, f"{msg} Expected HTTP/1.1 with at most {MAX_HEADERS} headers.")

    def _refuse(self, kind: ProblemKind, detail: str) -> None:
        """Answer and close, without the app: what is here is no request that it could see."""
        members = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": detail}
        body = to_json({**members, "instance": "", "trace_id": tracing.trace_id(), "errors": []})
        phrase = HTTPStatus(kind.status).phrase
        again = "retry-after: 2\r\n" if kind.status == 503 else ""
        head = (
            f"HTTP/1.1 {kind.status} {phrase}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\n{again}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _await_client(self) -> None:
        self._client_went_on()
        self._cut = self.loop.call_later(self.wait_seconds, self._abort, "a request")

    def _abort(self, awaited: str) -> None:
        metrics.CONNECTIONS_CUT.labels(awaited).inc()
        self.transport.abort()

    def _client_went_on(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


def _keep_little(transport: asyncio.Transport) -> None:
    """Have us and the kernel keep little for a client that does not read, so that we notice and it costs little.

    What is on its way to a client that does read is not bounded by this: that is the congestion window's business.
    """
    transport.set_write_buffer_limits(high=UNSENT_BYTES)
    connected = transport.get_extra_info("socket")
    if connected is not None and connected.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _answered(latest: RequestResponseCycle | None) -> bool:
    return latest is not None and latest.response_complete


def _between_requests(latest: RequestResponseCycle | None) -> bool:
    return latest is None or (latest.response_complete and not latest.more_body)

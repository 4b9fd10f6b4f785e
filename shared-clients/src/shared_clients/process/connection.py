"""One client's connection, with the bounds that uvicorn leaves open.

uvicorn waits for ever for a request's headers and takes any number of them: one byte a minute pins a connection. Here a
client has ten seconds for each of: its first bytes, the headers of a request, and the rest of a body that nobody
reads any more because the answer has been sent. (A body that is being read has its deadline in `web.edge`.)
"""

import asyncio
from typing import Final

import structlog
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared_clients import telemetry
from shared_models.problems import Problems

log = structlog.get_logger()

WAIT_SECONDS: Final = 10.0
HEAD_BYTES: Final = 32_768
"""Of a request line and headers that need more than one read; one read brings at most 256 KiB."""
MAX_HEADERS: Final = 128


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection, cut when the client does not go on with what it began."""

    wait_seconds = WAIT_SECONDS
    _cut: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it so
        super().connection_made(transport)
        self._await_client()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_went_on()
        super().connection_lost(exc)

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
        trace_id = telemetry.trace_id()
        log.info("request_unreadable", detail=msg, trace_id=trace_id)
        kind = Problems.BAD_REQUEST.value
        detail = f"{msg} Expected HTTP/1.1 with at most {MAX_HEADERS} headers."
        members = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": detail}
        body = to_json({**members, "instance": "", "trace_id": trace_id, "errors": []})
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _await_client(self) -> None:
        self._client_went_on()
        self._cut = self.loop.call_later(self.wait_seconds, self.transport.abort)

    def _client_went_on(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


def _answered(latest: RequestResponseCycle | None) -> bool:
    return latest is not None and latest.response_complete


def _between_requests(latest: RequestResponseCycle | None) -> bool:
    return latest is None or (latest.response_complete and not latest.more_body)

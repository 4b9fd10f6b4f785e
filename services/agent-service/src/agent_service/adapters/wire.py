"""Reads the stream of a model's server for an SDK, as the standards define it.

SDKs disagree about a complete answer, a sign of life and a chunk. `ModelClient` is the HTTP client
under each of them: it parses server-sent events itself and lets a provider's `Chunks` decide what the SDK gets to
read. This module holds the rules for all providers: any byte is a sign of life, an answer with its finish mark is
complete even if the stream stays open, and every read has a limit. `adapters/replies` checks the reply that the SDK
builds from the stream.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx2

from agent_service.adapters.dialects import LearnedDialects
from shared_clients.egress import EgressPolicy
from shared_clients.egress.sdk_transport import SdkTransport
from shared_models.agents import Dialect

CONNECT_SECONDS: Final = 10.0
TAIL_SECONDS: Final = 2.0
"""How long token counts may still come after the finish mark; then the answer is whole without them."""
MAX_EVENT: Final = 4 << 20
"""Bytes of one server-sent event, and of an answer that comes in one piece."""
MAX_STREAM: Final = 64 << 20
"""Bytes of one stream."""
MAX_ERROR: Final = 64 << 10
"""Bytes that are read of the body of a refusal."""

_LINE_END = re.compile(rb"[\r\n]")
_JSON = re.compile(r"application/(?:[\w.-]+\+)?json\b")


class StreamBrokenError(Exception):
    """The rest of a stream cannot be read; the message quotes no data of the stream."""


class WrongAddressError(StreamBrokenError):
    """The server at the address does not offer a model's API."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One server-sent event; `name` is empty where the server gave none."""

    name: str
    data: str


class EventDecoder:
    """Server-sent events out of bytes, by the HTML standard (9.2.6).

    Lines end with CR, LF or CRLF; bytes that are no UTF-8 are replaced; an event that no empty line ends is dropped.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._after_cr = False
        self._at_start = True
        self._data: list[str] = []
        self._name = ""
        self._size = 0

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """Yield the events that these bytes complete.

        Raises:
            StreamBrokenError: an event has more than `MAX_EVENT` bytes.
        """
        start = 0
        for match in _LINE_END.finditer(data):
            end = match.start()
            if not (self._after_cr and end == start and data[end] == 0x0A):
                self._grow(data[start:end])
                if (event := self._take_line()) is not None:
                    yield event
            self._after_cr = data[end] == 0x0D
            start = end + 1
        if start < len(data):
            self._after_cr = False
            self._grow(data[start:])

    def _grow(self, data: bytes) -> None:
        self._line += data
        if self._size + len(self._line) > MAX_EVENT:
            raise StreamBrokenError(f"an event has more than {MAX_EVENT} bytes")

    def _take_line(self) -> ServerSentEvent | None:
        line = self._line.decode(errors="replace")
        self._line.clear()
        if self._at_start:
            self._at_start, line = False, line.removeprefix("\ufeff")
        if not line:
            event = ServerSentEvent(self._name, "\n".join(self._data)) if self._data else None
            self._data, self._name, self._size = [], "", 0
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._size += len(line)
        elif field == "event":
            self._name = value
        return None


class Chunks(Protocol):
    """The chunks of one answer, by the rule of one provider's protocol; made anew for each stream.

    Attributes:
        finished: the finish mark has come; only token counts may follow.
        done: nothing follows any more.
    """

    @property
    def finished(self) -> bool: ...

    @property
    def done(self) -> bool: ...

    def read(self, event: ServerSentEvent) -> bytes:
        """Return the bytes that the SDK reads in place of one event; they may be empty.

        Raises:
            StreamBrokenError: a piece of the answer may be lost in it.
        """

    def close(self) -> bytes:
        """Return the buffered rest, and the end of the stream."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """The data of one model call that the HTTP client needs.

    Attributes:
        report_bytes: called for all bytes that come, whatever they mean.
        dialect: the agent's settings for a server that implements only a part of the protocol.
    """

    report_bytes: Callable[[], None]
    dialect: Dialect


_call: ContextVar[CallContext | None] = ContextVar("call", default=None)


@contextmanager
def calling(call: CallContext) -> Iterator[None]:
    """Assign the requests that `ModelClient` sends in this block to one call."""
    token = _call.set(call)
    try:
        yield
    finally:
        _call.reset(token)


class ModelClient(httpx2.AsyncClient):
    """The HTTP client of one provider; an answer that is streamed passes through `Chunks` before the SDK sees it.

    Args:
        chunks: makes the reader of one stream.
        learnable: how a member of the request's body is changed for servers that refuse it by name.
        base_url: of the provider's API; no other host or port is reached.
    """

    def __init__(self, chunks: Callable[[], Chunks], learnable: Mapping[str, Dialect], base_url: str) -> None:
        # How long silence may last is decided by `adapters/models`.
        super().__init__(
            transport=SdkTransport(EgressPolicy.of([base_url])),
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        )
        self._chunks = chunks
        self._dialects = LearnedDialects(learnable)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """Send a request, and repeat it without the members that the server refuses; see `httpx2.AsyncClient.send`."""
        call = _call.get()
        changed = self._dialects.translate(request, call.dialect if call else Dialect())
        while True:
            response = await super().send(changed.request, stream=True, **options)
            if not response.is_error:
                self._dialects.remember(changed)
                break
            response = await _bounded(response)
            error = await response.aread()
            simpler_request = self._dialects.without_refused_member(changed, response.status_code, error)
            if simpler_request is None:
                return response
            changed = simpler_request
        if not stream:
            await response.aread()
            return response
        return _replaced(response, _ReplyStream(response, self._chunks()))


async def _bounded(response: httpx2.Response) -> httpx2.Response:
    """Read the body of a refusal up to `MAX_ERROR` bytes, and return the response with it."""
    body = bytearray()
    try:
        async for data in response.aiter_bytes():
            body += data
            if len(body) > MAX_ERROR:
                break
    finally:
        await response.aclose()
    return _replaced(response, httpx2.ByteStream(bytes(body[:MAX_ERROR])))


def _replaced(response: httpx2.Response, stream: httpx2.AsyncByteStream | httpx2.ByteStream) -> httpx2.Response:
    """Return a response with another body, which is neither compressed nor of known length."""
    gone = {"content-encoding", "content-length", "transfer-encoding"}
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in gone]
    if isinstance(stream, _ReplyStream):
        headers = [pair for pair in headers if pair[0].lower() != "content-type"]
        headers.append(("content-type", "text/event-stream"))
    return httpx2.Response(
        response.status_code,
        headers=headers,
        stream=stream,
        request=response.request,
        extensions=response.extensions,
        history=response.history,
    )


class _ReplyStream(httpx2.AsyncByteStream):
    """The body of one streamed answer, as `Chunks` lets it through.

    The SDK iterates the body a second time to drain the connection; that iteration yields the remaining bytes unparsed.
    """

    def __init__(self, response: httpx2.Response, chunks: Chunks) -> None:
        self._response = response
        self._bytes: AsyncIterator[bytes] = response.aiter_bytes()
        self._chunks = chunks
        self._begun = False
        self._tail_ends: float | None = None
        self._size = 0

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        if self._begun:
            async for data in self._bytes:
                yield data
            return
        self._begun = True
        async for event in self._events():
            if read := self._chunks.read(event):
                yield read
            if self._chunks.done:
                break
        yield self._chunks.close()

    async def _events(self) -> AsyncGenerator[ServerSentEvent]:
        kind = self._response.headers.get("content-type", "").strip().lower()
        if kind.startswith("text/html"):
            raise WrongAddressError("a web page came instead of an answer")
        if _JSON.match(kind):  # a server that does not stream sends the answer in one piece
            whole = bytearray()
            while (data := await self._read()) is not None:
                whole += data
                if len(whole) > MAX_EVENT:  # a parsed answer takes many times the memory of its bytes
                    raise StreamBrokenError(f"an answer of more than {MAX_EVENT} bytes came in one piece")
            yield ServerSentEvent("", whole.decode(errors="replace"))
            return
        decoder = EventDecoder()
        while (data := await self._read()) is not None:
            for event in decoder.feed(data):
                yield event

    async def _read(self) -> bytes | None:
        """Return the next bytes, or None at the end; after the finish mark a break counts as the end."""
        if self._chunks.finished and self._tail_ends is None:
            self._tail_ends = asyncio.get_running_loop().time() + TAIL_SECONDS
        try:
            async with asyncio.timeout_at(self._tail_ends):
                data = await anext(self._bytes, None)
        except (TimeoutError, httpx2.TransportError):
            if not self._chunks.finished:
                raise
            return None
        if data is not None:
            self._size += len(data)
            if self._size > MAX_STREAM:
                raise StreamBrokenError(f"the answer has more than {MAX_STREAM} bytes")
            if (call := _call.get()) is not None:
                call.report_bytes()
        return data

    async def aclose(self) -> None:
        await self._response.aclose()

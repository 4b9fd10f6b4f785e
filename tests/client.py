"""A client of a fleet, as strangers write one: HTTP calls, and streams of server-sent events that it may leave.

It believes nothing: the answer's bytes are kept as they came, a stream's lines have to be exactly those of the
contract, and what a stream says is checked by `tests.simulators.viewer` as it comes.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Self

import aiohttp
from multidict import CIMultiDict

from shared_models.frames import START, Cursor, Frame
from tests.fleets import Fleet
from tests.simulators.viewer import Viewer

PATIENCE: Final = 20.0
"""Seconds after which a test gives up on something that should come soon."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; an Authorization header of the developer is added unless there is one, or it is None."""

    method: str
    path: str
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: CIMultiDict[str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Seen:
    """All that one client has seen of one run, over however many connections."""

    viewer: Viewer = field(default_factory=Viewer)
    frames: list[Frame] = field(default_factory=list)

    @property
    def cursor(self) -> Cursor:
        return self.viewer.cursor

    @property
    def answer(self) -> str:
        """The text of the last message: those before it led to tool calls."""
        return next(reversed(self.viewer.texts.values()), "")

    @property
    def ended(self) -> bool:
        return self.viewer.outcome is not None

    def take(self, frame: Frame) -> None:
        """Take the next frame.

        Raises:
            AssertionError: it breaks AG-UI's order, comes twice, or leaves a gap to the one before.
        """
        self.viewer.take(frame)
        before = self.frames[-1].cursor if self.frames else START
        if frame.cursor.epoch == before.epoch:
            assert frame.cursor.sequence == before.sequence + 1, f"a gap between {before} and {frame.cursor}"
        else:
            assert frame.cursor.sequence == (0 if frame.terminal else 1), f"a gap between {before} and {frame.cursor}"
        self.frames.append(frame)


@dataclass
class Stream:
    """An open stream."""

    status: int
    headers: CIMultiDict[str]
    seen: Seen
    _response: aiohttp.ClientResponse

    async def read(self) -> AsyncGenerator[Frame]:
        """Yield the frames as they come, up to the end of the stream."""
        async for frame in _frames(self._response.content.iter_any()):
            self.seen.take(frame)
            yield frame

    async def first(self, size: int) -> bytes:
        """Return so many bytes of the stream, wherever in a frame they end."""
        return await self._response.content.readexactly(size)

    async def rest(self) -> bytes:
        return await self._response.read()


class Client:
    """Calls a fleet's gateways in turn: whatever one of them has begun, any other can go on with."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._urls = itertools.cycle(fleet.urls)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=5, sock_read=PATIENCE),
            skip_auto_headers=("Content-Type",),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(self, request: Request, url: str | None = None) -> Answer:
        began = monotonic()
        async with asyncio.timeout(PATIENCE), self._open(request, url) as response:
            body = await response.read()
            return Answer(response.status, CIMultiDict(response.headers), body, monotonic() - began)

    @asynccontextmanager
    async def stream(self, request: Request, seen: Seen | None = None, url: str | None = None) -> AsyncIterator[Stream]:
        """Open a stream; where something was seen before, go on behind it."""
        seen = seen or Seen()
        last = {} if seen.cursor == START else {"Last-Event-ID": str(seen.cursor)}
        resumed = Request(request.method, request.path, {**last, **request.headers}, request.body)
        async with self._open(resumed, url) as response:
            yield Stream(response.status, CIMultiDict(response.headers), seen, response)

    def _open(self, request: Request, url: str | None) -> aiohttp.client._RequestContextManager:
        headers: dict[str, str | None] = {"Authorization": f"Bearer {self.fleet.key}"}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        headers |= request.headers
        sent = {name: value for name, value in headers.items() if value is not None}
        data = _chunks(request.body) if request.body is not None and request.chunked else request.body
        address = f"{url or next(self._urls)}{request.path}"
        return self._session.request(request.method, address, headers=sent, data=data, allow_redirects=False)


async def _chunks(body: bytes) -> AsyncGenerator[bytes]:
    for place in range(0, len(body), 16_384):
        yield body[place : place + 16_384]


async def _frames(pieces: AsyncIterator[bytes]) -> AsyncGenerator[Frame]:
    """Read server-sent events as `contracts.md` has them: `retry`, comments, and `id` with `data`."""
    gathered = b""
    async for piece in pieces:
        *events, gathered = (gathered + piece).split(b"\n\n")
        for event in events:
            if event.startswith((b":", b"retry:")):
                continue
            identity, data = event.split(b"\n")
            assert identity.startswith(b"id: "), f"expected the line id, and got {identity!r}"
            assert data.startswith(b"data: "), f"expected the line data, and got {data[:80]!r}"
            frame = json.loads(data[6:])
            yield Frame(Cursor.parse(identity[4:].decode()), frame["type"], data[6:])
    assert gathered == b"", f"the stream ended inside of an event: {gathered[:80]!r}"

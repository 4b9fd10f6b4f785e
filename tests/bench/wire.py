"""The cheapest HTTP client there is, so that what is measured is the server: one connection, bytes in, bytes out."""

import asyncio
import time
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit


class Wire:
    """A keep-alive connection to one server; an async context manager."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._netloc = parts.netloc

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    def request(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Return the bytes of a POST."""
        lines = [f"POST {path} HTTP/1.1", f"Host: {self._netloc}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body

    async def answer(self, request: bytes, expected: bytes) -> float:
        """Send a request, read its whole answer, and return the seconds.

        Raises:
            AssertionError: the status is not as expected; a figure of errors is no figure.
        """
        began = time.perf_counter()
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + expected), head[:200]
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self._reader.readexactly(int(length.split(b":")[1]))
        return time.perf_counter() - began


async def first(url: str, request: bytes, token: bytes) -> float:
    """Send a request on a new connection, read the answer to its end, and return the seconds until it held `token`."""
    wire = Wire(url)
    began = time.perf_counter()
    async with wire:
        wire._writer.write(request)
        seen, seconds = b"", 0.0
        async with asyncio.timeout(30):
            while piece := await wire._reader.read(65536):
                seen += piece
                if not seconds and token in seen:
                    seconds = time.perf_counter() - began
                if b"0\r\n\r\n" in piece[-7:]:
                    break
    assert seconds, seen[:500]
    return seconds

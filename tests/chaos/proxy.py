"""A TCP proxy that is a bad network: it delays, swallows, throttles, and resets connections in the middle of a frame.

It stands before one dependency, and what it does may be changed while connections are open. It works in user space,
so it needs no rights: a swallowed byte is one that was read and not passed on.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Final, Self

PIECE: Final = 65_536

type Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


@dataclass(slots=True)
class Weather:
    """What the network does now; the default is nothing.

    Attributes:
        delay: seconds before each piece goes on.
        rate: bytes a second, in each direction of each connection; None: any.
        blocked: nothing passes, neither bytes nor new connections, and nobody is told; it goes on when this ends.
        deaf: what the dependency says is lost for good, while it goes on hearing.
        reset_after: the next connection that has passed that many bytes of answers is reset, in both directions.
    """

    delay: float = 0.0
    rate: int | None = None
    blocked: bool = False
    deaf: bool = False
    reset_after: int | None = None


class Proxy:
    """Listens on a port of 127.0.0.1 while its context is open.

    Args:
        target: what it stands before.
        port: where; any by default.
    """

    def __init__(self, target: Address, port: int = 0) -> None:
        self.target = target
        self.port = port
        self.weather = Weather()
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    async def change(self, weather: Weather) -> None:
        """Have the network do this from now on."""
        async with self._changed:
            self.weather = weather
            self._changed.notify_all()

    def cut(self) -> None:
        """Reset all connections that are open."""
        for writer in list(self._open):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            await self._passable()
            answers, there = await _connect(self.target)
            self._open.add(there)
            await self._both_ways((reader, there), (answers, writer))
        except OSError:
            pass  # the dependency is away, or somebody has hung up: the other side hears of it below
        finally:
            for end in (writer, there):
                if end is not None:
                    self._open.discard(end)
                    end.close()

    async def _both_ways(
        self,
        asked: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        answered: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Pass bytes on in both directions until one side ends."""
        ways = [
            asyncio.create_task(self._pass_on(*asked, answers=False)),
            asyncio.create_task(self._pass_on(*answered, answers=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        passed = 0
        while piece := await reader.read(PIECE):
            await asyncio.sleep(self.weather.delay)
            if self.weather.rate:
                await asyncio.sleep(len(piece) / self.weather.rate)
            await self._passable()
            if answers and self.weather.deaf:
                continue
            limit = self.weather.reset_after
            if answers and limit is not None and passed + len(piece) >= limit:
                self.weather.reset_after = None
                writer.write(piece[: max(0, limit - passed)])
                await writer.drain()
                _reset(writer)
                return
            writer.write(piece)
            passed += len(piece)
            await writer.drain()

    async def _passable(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self.weather.blocked)


async def _connect(target: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(target, str):
        return await asyncio.open_unix_connection(target)
    return await asyncio.open_connection(*target)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Hang up with RST: what was not read yet is lost."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX and not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

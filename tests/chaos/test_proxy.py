import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest

from tests.chaos.proxy import Proxy, Weather

SOON = 5.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()) as proxy:
        yield proxy


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def heard(reader: asyncio.StreamReader, count: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(count), SOON)


async def is_silent(reader: asyncio.StreamReader, seconds: float = 0.2) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), seconds)
    except TimeoutError:
        return True
    return False


async def test_in_fair_weather_every_byte_passes(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 4_000
    async with connected(proxy) as (reader, writer):
        writer.write(sent)
        assert await heard(reader, len(sent)) == sent


async def test_before_a_unix_socket_it_works_as_well(tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(echo, tmp_path / "socket")
    async with server, Proxy(str(tmp_path / "socket")) as proxy, connected(proxy) as (reader, writer):
        writer.write(b"hello")
        assert await heard(reader, 5) == b"hello"


async def test_delayed_bytes_come_late(proxy: Proxy) -> None:
    await proxy.change(Weather(delay=0.1))
    async with connected(proxy) as (reader, writer):
        began = monotonic()
        writer.write(b"hello")
        assert await heard(reader, 5) == b"hello"
        assert monotonic() - began >= 0.2, "once on the way there, once on the way back"


async def test_a_narrow_network_takes_its_time(proxy: Proxy) -> None:
    await proxy.change(Weather(rate=100_000))
    async with connected(proxy) as (reader, writer):
        began = monotonic()
        writer.write(b"x" * 20_000)
        await heard(reader, 20_000)
        assert monotonic() - began >= 0.2


async def test_what_is_blocked_is_silent_and_goes_on_later(proxy: Proxy) -> None:
    async with connected(proxy) as (reader, writer):
        await proxy.change(Weather(blocked=True))
        writer.write(b"hello")
        assert await is_silent(reader)
        async with connected(proxy) as (late, asking):
            asking.write(b"late")
            assert await is_silent(late), "a new connection is taken and leads nowhere"
            await proxy.change(Weather())
            assert await heard(late, 4) == b"late"
        assert await heard(reader, 5) == b"hello"


async def test_a_half_open_connection_hears_nothing_any_more(proxy: Proxy) -> None:
    async with connected(proxy) as (reader, writer):
        await proxy.change(Weather(deaf=True))
        writer.write(b"lost")
        assert await is_silent(reader)
        await proxy.change(Weather())
        writer.write(b"found")
        assert await heard(reader, 5) == b"found", "what was said meanwhile is gone for good"


async def test_a_connection_is_reset_in_the_middle_of_a_frame_once(proxy: Proxy) -> None:
    await proxy.change(Weather(reset_after=3))
    async with connected(proxy) as (reader, writer):
        writer.write(b"hello")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.readexactly(5), SOON)
    async with connected(proxy) as (reader, writer):
        writer.write(b"hello")
        assert await heard(reader, 5) == b"hello"


async def test_cutting_resets_what_is_open(proxy: Proxy) -> None:
    async with connected(proxy) as (reader, writer):
        writer.write(b"hello")
        await heard(reader, 5)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), SOON)


async def test_while_the_dependency_is_away_a_connection_ends_at_once(proxy: Proxy) -> None:
    proxy.target = ("127.0.0.1", 1)
    async with connected(proxy) as (reader, _):
        assert await asyncio.wait_for(reader.read(1), SOON) == b""

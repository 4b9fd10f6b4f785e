"""A served app on a real socket: it stops in order, however it is asked, and gives back what it took."""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Final

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse

from service_process.serving import PortTaken, Stop, bind, serve
from service_process.web import create_app, draining
from shared_clients.errors import Permanent, Transient

PATIENCE: Final = 10.0


async def ready() -> None:
    return


class Served:
    """An app with a request that takes as long as the test wants, a stream, and a record of what happened when."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.began = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.startup_error: Exception | None = None
        self.app: FastAPI = create_app("test", routers=[self._routes()], ready=ready, lifespan=self._open)
        self.socket = bind("127.0.0.1", 0)
        self.port: int = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def _routes(self) -> APIRouter:
        router = APIRouter()

        @router.get("/slow")
        async def slow() -> str:
            self.began.set()
            try:
                await self.may_answer.wait()
            except asyncio.CancelledError:
                self.happened.append("cancelled")
                raise
            self.happened.append("answered")
            return "whole"

        @router.get("/stream")
        async def stream() -> StreamingResponse:
            return StreamingResponse(self._stream())

        return router

    async def _stream(self) -> AsyncIterator[bytes]:
        yield b"first\n"
        self.began.set()
        await draining(self.app).wait()
        yield b"come back\n"
        self.happened.append("stream ended")

    @asynccontextmanager
    async def _open(self, _app: FastAPI) -> AsyncGenerator[None]:
        if self.startup_error:
            raise self.startup_error
        self.happened.append("opened")
        yield
        self.happened.append("closed")

    async def serve(self, stop: Stop | None = None, drain_seconds: float = 10.0) -> None:
        await serve(
            self.app,
            host="127.0.0.1",
            port=self.port,
            draining=draining(self.app).set,
            sockets=[self.socket],
            stop=stop,
            drain_seconds=drain_seconds,
        )


@pytest.fixture
async def client() -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        yield client


async def refused(port: int) -> None:
    """Wait until nobody accepts connections there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                return
            writer.close()
            await asyncio.sleep(0.01)


async def test_a_stop_lets_the_request_in_flight_finish_and_takes_no_more(client: httpx.AsyncClient) -> None:
    service, stop = Served(), Stop()
    before = asyncio.all_tasks()
    async with asyncio.TaskGroup() as group:
        group.create_task(service.serve(stop))
        answer = group.create_task(client.get(f"{service.url}/slow"))
        await service.began.wait()
        stop.request()
        await refused(service.port)
        assert draining(service.app).is_set()
        assert not answer.done()
        service.may_answer.set()
    assert answer.result().json() == "whole"
    assert service.happened == ["opened", "answered", "closed"]
    assert asyncio.all_tasks() == before


async def test_open_streams_end_when_the_stop_begins(client: httpx.AsyncClient) -> None:
    service, stop = Served(), Stop()
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(service.serve(stop))
        answer = group.create_task(client.get(f"{service.url}/stream"))
        await service.began.wait()
        stop.request()
    assert answer.result().text == "first\ncome back\n"
    assert service.happened == ["opened", "stream ended", "closed"]
    assert time.monotonic() - started < 3


async def test_what_does_not_finish_is_cut_when_the_time_is_over(client: httpx.AsyncClient) -> None:
    service, stop = Served(), Stop()
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(service.serve(stop, drain_seconds=2))
        answer = group.create_task(failing(client.get(f"{service.url}/slow")))
        await service.began.wait()
        stop.request()
    assert answer.result()
    assert service.happened == ["opened", "cancelled", "closed"]
    assert time.monotonic() - started < 3


async def test_asked_twice_it_stops_at_once(client: httpx.AsyncClient) -> None:
    service, stop = Served(), Stop()
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(service.serve(stop, drain_seconds=60))
        answer = group.create_task(failing(client.get(f"{service.url}/slow")))
        await service.began.wait()
        stop.request()
        stop.request()
    assert answer.result()
    assert "cancelled" in service.happened
    assert time.monotonic() - started < 3


async def failing(call: Awaitable[httpx.Response]) -> bool:
    """Tell whether a call ended in a 5xx or a broken connection."""
    try:
        answer = await call
    except httpx.TransportError:
        return True
    return answer.is_server_error


async def test_several_apps_of_one_process_stop_together(client: httpx.AsyncClient) -> None:
    services, stop = [Served() for _ in range(3)], Stop()
    async with asyncio.TaskGroup() as group:
        for service in services:
            group.create_task(service.serve(stop))
        for service in services:
            assert (await client.get(f"{service.url}/readyz")).status_code == 200
        stop.request()
    for service in services:
        assert service.happened == ["opened", "closed"]
        await refused(service.port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_stop_it_and_their_handlers_are_restored(
    number: signal.Signals, client: httpx.AsyncClient
) -> None:
    service = Served()
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    async with asyncio.TaskGroup() as group:
        group.create_task(service.serve())
        assert (await client.get(f"{service.url}/livez")).status_code == 200
        os.kill(os.getpid(), number)
    assert service.happened == ["opened", "closed"]
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before


async def test_a_taken_port_is_named_with_a_remedy() -> None:
    taken = bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(PortTaken, match=rf"port {port} on 127\.0\.0\.1 is in use by another program; stop it"):
        bind("127.0.0.1", port)
    taken.close()
    bind("127.0.0.1", port).close()


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(Permanent, match=r"cannot listen on 192\.0\.2\.1, port 0"):
        bind("192.0.2.1", 0)


async def test_an_error_at_the_start_rises_as_it_is_and_frees_the_port() -> None:
    service = Served()
    service.startup_error = Transient("the database does not answer")
    with pytest.raises(Transient, match="the database does not answer"):
        await service.serve(Stop())
    bind("127.0.0.1", service.port).close()


async def test_a_stop_during_the_start_gives_it_up() -> None:
    service, stop = Served(), Stop()
    starting = asyncio.Event()

    @asynccontextmanager
    async def hanging(_app: FastAPI) -> AsyncGenerator[None]:
        starting.set()
        await asyncio.Event().wait()
        yield

    app = create_app("test", routers=[], ready=ready, lifespan=hanging)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(serve(app, host="", port=0, draining=draining(app).set, sockets=[service.socket], stop=stop))
        await starting.wait()
        stop.request()


SCRIPT: Final = dedent("""
    import asyncio, sys
    from fastapi import APIRouter
    from shared_clients import telemetry
    from service_process.serving import run, serve
    from service_process.web import create_app, draining

    router = APIRouter()

    @router.get("/slow")
    async def slow() -> str:
        print("began", flush=True)
        await asyncio.sleep(float(sys.argv[2]))
        return "whole"

    async def ready() -> None:
        return

    async def main() -> None:
        telemetry.configure("script", json=True)
        app = create_app("script", routers=[router], ready=ready)
        await serve(app, host="127.0.0.1", port=int(sys.argv[1]), draining=draining(app).set)
        print(type(asyncio.get_running_loop()).__module__, flush=True)

    run(main)
""")


@asynccontextmanager
async def process(tmp_path: Path, port: int, seconds: float) -> AsyncGenerator[Process]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    child = await asyncio.create_subprocess_exec(
        sys.executable, script, str(port), str(seconds), stdout=PIPE, stderr=PIPE
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def rest(child: Process, seconds: float) -> tuple[str, str]:
    async with asyncio.timeout(seconds):
        output, errors = await child.communicate()
    return output.decode(), errors.decode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def up(client: httpx.AsyncClient, url: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await client.get(f"{url}/livez")
            except httpx.ConnectError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.processes
async def test_a_process_on_uvloop_finishes_its_requests_and_exits_with_zero(
    tmp_path: Path, client: httpx.AsyncClient
) -> None:
    port = free_port()
    async with process(tmp_path, port, seconds=0.5) as child:
        await up(client, f"http://127.0.0.1:{port}")
        answer = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/slow"))
        assert child.stdout is not None
        assert await child.stdout.readline() == b"began\n"
        child.send_signal(signal.SIGTERM)
        assert (await answer).json() == "whole"
        output, errors = await rest(child, PATIENCE)
        assert child.returncode == 0
        assert output == "uvloop\n"
        assert "Traceback" not in errors


@pytest.mark.processes
async def test_a_second_signal_ends_a_process_at_once(tmp_path: Path, client: httpx.AsyncClient) -> None:
    port = free_port()
    async with process(tmp_path, port, seconds=60) as child:
        await up(client, f"http://127.0.0.1:{port}")
        answer = asyncio.create_task(failing(client.get(f"http://127.0.0.1:{port}/slow")))
        assert child.stdout is not None
        assert await child.stdout.readline() == b"began\n"
        child.send_signal(signal.SIGINT)
        await refused(port)
        child.send_signal(signal.SIGINT)
        await rest(child, 3)
        assert child.returncode == 0
        assert await answer


@pytest.mark.processes
async def test_a_taken_port_ends_a_process_with_one_line(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        async with process(tmp_path, taken.getsockname()[1], seconds=0) as child:
            _, errors = await rest(child, 30)
            assert child.returncode == 1
            assert re.fullmatch(r"port \d+ on 127\.0\.0\.1 is in use .*\n", errors)

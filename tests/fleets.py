"""Whole fleets for tests: one in this process, one of real processes on real Kafka, Postgres and Redis, one deployed.

Faked: nothing of ours. The one-process fleet is `flotilla up`, with embedded Postgres and Redis and bus in memory; the
other is `flotilla up --processes`. Both listen on real sockets, so a test cannot tell them apart but by their address.
"""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncGenerator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import pytest

from fleet.anchoring import EMBEDDED, load_witness
from fleet.app import FleetOptions, open_fleet
from fleet.processes import Processes, Stores, open_processes
from fleet.settings import FleetSettings
from local_backends.server import free_port
from service_process.serving import Stop, bind, serve
from service_process.web import draining

KEY: Final = f"test-{secrets.token_hex(16)}"
OPEN_SECONDS: Final = 120.0


class Background(Protocol):
    """The loop of the root conftest's fixture."""

    def run(self, work: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet that answers.

    Attributes:
        urls: of its gateways; each is as good as the other.
        key: the developer's.
    """

    urls: tuple[str, ...]
    key: str = KEY


@dataclass(frozen=True, slots=True)
class ProcessFleet(Fleet):
    """A fleet whose processes may be killed.

    Attributes:
        processes: started again when they die.
        logs: the folder of their logs.
    """

    processes: Processes | None = None
    logs: Path = Path()

    @property
    def stores(self) -> Stores:
        assert self.processes is not None
        return self.processes.stores

    def pid(self, name: str) -> int:
        """Return the process that has this name now, such as `agent-service-2`."""
        assert self.processes is not None
        return self.processes.supervisor.pid(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.pid(name), number)

    def name_of(self, worker: UUID) -> str:
        """Return which agent-service has this worker id: it tells it in its log."""
        [name] = [log.stem for log in self.logs.glob("agent-service-*.log") if str(worker) in log.read_text()]
        return name


def deployed(variable: str = "FLOTILLA_TEST_URL") -> Fleet | None:
    """Return the fleet whose address is in the environment, and its key in FLOTILLA_TEST_KEY: containers, a cluster."""
    url = os.environ.get(variable)
    return Fleet((url.rstrip("/"),), os.environ["FLOTILLA_TEST_KEY"]) if url else None


@asynccontextmanager
async def one_process(folder: Path, agent_configs: Path) -> AsyncGenerator[Fleet]:
    """Run a fleet in this process, as `flotilla up` does."""
    settings = FleetSettings(home=folder, port=free_port())
    options = FleetOptions(folder, settings.allowed_hosts, KEY, agent_configs, load_witness(settings, EMBEDDED))
    async with open_fleet(options, lambda _: None) as gateway:
        stop = Stop()
        serving = asyncio.create_task(
            serve(
                gateway.app,
                host="127.0.0.1",
                port=settings.port,
                sockets=[bind("127.0.0.1", settings.port)],
                stop=stop,
                draining=draining(gateway.app).set,
            )
        )
        try:
            yield Fleet((f"http://localhost:{settings.port}",))
        finally:
            stop.request()
            await serving
    await asyncio.gather(*(task for task in asyncio.all_tasks() if _blocks_in_fakeredis(task)), return_exceptions=True)


def _blocks_in_fakeredis(task: asyncio.Task[object]) -> bool:
    """Tell a read that fakeredis goes on with, for up to 2 s, although its reader has gone."""
    return getattr(task.get_coro(), "__qualname__", "") == "AsyncFakeSocket._async_blocking"


@asynccontextmanager
async def several_processes(
    folder: Path, agent_configs: Path, stores: Stores, environment: Mapping[str, str]
) -> AsyncGenerator[ProcessFleet]:
    """Run a process per service, with two of agent-service and two gateways.

    Args:
        folder: for keys and logs.
        agent_configs: the agents.
        stores: real ones, with an empty database.
        environment: what the processes get besides.
    """
    settings = FleetSettings(port=free_port(), agent_configs=agent_configs, log_level="info")
    replicas = {"agent-service": 2, "api-gateway": 2}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        opening = open_processes(settings, folder, KEY, stores, replicas=replicas, report_progress=lambda _: None)
        async with opening as processes:
            yield ProcessFleet(processes.urls, KEY, processes, folder / "logs")


@contextmanager
def held[T](background: Background, context: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Keep an async context open in the background, entered and left by one and the same task."""
    opened: Future[T] = Future()
    leave = asyncio.Event()

    async def hold() -> None:
        try:
            async with context as value:
                opened.set_result(value)
                await leave.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    async def begin() -> asyncio.Task[None]:
        return asyncio.create_task(hold())

    async def end(task: asyncio.Task[None]) -> None:
        leave.set()
        await task

    task = background.run(begin())
    try:
        yield opened.result(OPEN_SECONDS)
    finally:
        background.run(end(task))

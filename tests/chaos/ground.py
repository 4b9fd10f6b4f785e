"""What scenarios break: real stores that can be killed, a provider, and a fleet of processes that is kept running.

The stores are started here and not found, because their process ids have to be ours.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Final

import aiohttp
import asyncpg
import pytest
from sqlalchemy import make_url

from fleet.processes import Stores, open_processes
from fleet.settings import FleetSettings
from local_backends import Backend, ProxiedListener, running_kafka, running_postgres, running_redis
from local_backends.server import free_port
from tests.chaos.proxy import Proxy
from tests.children import child
from tests.fleets import KEY, ProcessFleet

HERE: Final = Path(__file__).parent
UP_SECONDS: Final = 60.0
"""How long a process may take to serve again before it counts as a fault of ours."""
DATABASE_AWAY: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


@dataclass(frozen=True, slots=True)
class Shape:
    """What makes one fleet differ from another: scenarios of the same shape are played on the same one.

    Attributes:
        replicas: of a service; one unless it says so.
        environment: what the processes get besides.
        disk_mib: where it is set, a database of its own on a disk of that size, which only root can mount.
        proxied: they reach the stores through proxies, which can be a bad network.
    """

    replicas: tuple[tuple[str, int], ...] = (("agent-service", 2), ("api-gateway", 2), ("request-manager", 2))
    environment: tuple[tuple[str, str], ...] = ()
    disk_mib: int = 0
    proxied: bool = False


@dataclass(frozen=True, slots=True)
class Installed:
    """The stores of all fleets.

    Attributes:
        running: `postgres`, `kafka` and `redis`, each with `pid`, `kill()` and `restart()`.
        proxied: Kafka's listener for clients that come through a proxy.
    """

    running: Mapping[str, Backend]
    proxied: ProxiedListener


@dataclass(frozen=True, slots=True)
class Ground:
    """Everything, running.

    Attributes:
        fleet: its processes are named `<service>-<replica>`.
        stores: `postgres`, `kafka` and `redis`, each with `pid`, `kill()` and `restart()`.
        database_url: of this fleet's database, past any proxy.
        proxies: by the names of the stores, in a fleet that is proxied.
        provider: base URL of the provider simulator, without `/v1`.
        failpoints: the folder that arms the fleet.
        folder: of the logs.
        small_disk: on which the database is, where the shape asks for one.
    """

    fleet: ProcessFleet
    stores: Mapping[str, Backend]
    database_url: str
    proxies: Mapping[str, Proxy]
    provider: str
    failpoints: Path
    folder: Path
    small_disk: Path | None = None

    def names(self, service: str = "") -> list[str]:
        """Return the names of a service's processes, or of all."""
        assert self.fleet.processes is not None
        return sorted(name for name in self.fleet.processes.commands if name.startswith(service))

    def pids(self, service: str) -> dict[str, int]:
        """Return the processes of a service as they are now."""
        return {name: self.fleet.pid(name) for name in self.names(service)}

    def url(self, name: str) -> str:
        assert self.fleet.processes is not None
        return self.fleet.processes.commands[name].url

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process or a store."""
        if name in self.stores:
            os.kill(self.stores[name].pid, number)
        else:
            self.fleet.signal(name, number)

    async def is_up(self, name: str) -> bool:
        try:
            timeout = aiohttp.ClientTimeout(total=2)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self.url(name)}/readyz") as got,
            ):
                return got.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def up(self, *names: str) -> None:
        """Wait until processes serve; without names, all."""
        for name in names or self.names():
            await until(f"{name} serves", lambda name=name: self.is_up(name), UP_SECONDS)  # type: ignore[misc]  # bound now

    async def reborn(self, name: str, pid: int) -> None:
        """Wait until a process that was of this id has been started again, and serves."""

        async def is_another() -> bool:
            return self.fleet.pid(name) != pid

        await until(f"{name} is started again", is_another, UP_SECONDS, 0.02)
        await self.up(name)

    @asynccontextmanager
    async def database(self) -> AsyncGenerator[asyncpg.Connection]:
        """Connect as an operator, past every service, waiting for a database that is coming up."""
        began = monotonic()
        while True:
            try:
                connection = await asyncpg.connect(self.database_url, timeout=10)
                break
            except DATABASE_AWAY:
                if monotonic() - began > UP_SECONDS:
                    raise
                await asyncio.sleep(0.1)
        try:
            yield connection
        finally:
            await connection.close()


async def until(what: str, look: Callable[[], Awaitable[bool]], seconds: float, pause: float = 0.05) -> float:
    """Look again and again until it is so, and return how long that took: other processes have no way of telling.

    Raises:
        AssertionError: it did not come to be in time.
    """
    began = monotonic()
    while not await look():
        if monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(pause)
    return monotonic() - began


@asynccontextmanager
async def open_stores(folder: Path) -> AsyncGenerator[Installed]:
    """Run Postgres, Kafka and Redis, each in a folder of its own."""
    proxied = ProxiedListener(broker_port=free_port(), proxy_port=free_port())
    async with AsyncExitStack() as stack:
        running = {
            "postgres": await stack.enter_async_context(running_postgres(folder / "postgres")),
            "redis": await stack.enter_async_context(running_redis(folder / "redis")),
            "kafka": await stack.enter_async_context(running_kafka(folder / "kafka", proxied=proxied)),
        }
        yield Installed(running, proxied)


@asynccontextmanager
async def open_ground(folder: Path, installed: Installed, shape: Shape) -> AsyncGenerator[Ground]:
    """Run a fleet of a shape on stores, with an empty database of its own."""
    failpoints = folder / "failpoints"
    failpoints.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        small_disk = stack.enter_context(_small_disk(folder / "disk", shape.disk_mib)) if shape.disk_mib else None
        if small_disk is not None:
            own = await stack.enter_async_context(running_postgres(small_disk / "postgres"))
            installed = replace(installed, running={**installed.running, "postgres": own})
        ground = await stack.enter_async_context(_open_fleet(folder, installed, shape, failpoints))
        yield replace(ground, small_disk=small_disk)


@contextmanager
def _small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """Mount a disk of its own in a folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=755", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@asynccontextmanager
async def _open_fleet(folder: Path, installed: Installed, shape: Shape, failpoints: Path) -> AsyncGenerator[Ground]:
    stores = installed.running
    database = make_url(stores["postgres"].url).set(database=await _new_database(stores["postgres"].url))
    direct = Stores(database.render_as_string(hide_password=False), stores["kafka"].url, stores["redis"].url)
    settings = FleetSettings(port=free_port(), agent_configs=HERE / "agent-configs", log_level="info")
    async with AsyncExitStack() as stack:
        port = free_port()
        words = ["tests.simulators.openai", "--port", str(port)]
        provider = (await stack.enter_async_context(child(folder / "provider", words, port))).url
        proxies = await _open_proxies(stack, installed) if shape.proxied else {}
        addresses = _through(proxies, direct) if proxies else direct
        environment = {
            "OPENAI_BASE_URL": f"{provider}/v1",
            "OPENAI_API_KEY": "sk-chaos",
            "FLOTILLA_FAILPOINTS": str(failpoints),
            **dict(shape.environment),
        }
        replicas = dict(shape.replicas)
        with pytest.MonkeyPatch.context() as patch:  # what a process gets it keeps, also when it is started again
            for name, value in environment.items():
                patch.setenv(name, value)
            opening = open_processes(
                settings, folder, KEY, addresses, replicas=replicas, report_progress=lambda _: None
            )
            processes = await stack.enter_async_context(opening)
        fleet = ProcessFleet(processes.urls, KEY, processes, folder / "logs")
        database_url = direct.database_url.replace("+asyncpg", "")
        yield Ground(fleet, stores, database_url, proxies, provider, failpoints, folder)


async def _open_proxies(stack: AsyncExitStack, installed: Installed) -> dict[str, Proxy]:
    stores = installed.running
    socket = Path(str(make_url(stores["postgres"].url).query["host"])) / ".s.PGSQL.5432"
    redis, kafka = make_url(stores["redis"].url).port, installed.proxied
    assert redis is not None
    return {
        "postgres": await stack.enter_async_context(Proxy(str(socket))),
        "redis": await stack.enter_async_context(Proxy(("127.0.0.1", redis))),
        "kafka": await stack.enter_async_context(Proxy(("127.0.0.1", kafka.broker_port), kafka.proxy_port)),
    }


def _through(proxies: Mapping[str, Proxy], direct: Stores) -> Stores:
    """Return the addresses of the proxies in place of the stores'."""
    database = make_url(direct.database_url).set(host="127.0.0.1", port=proxies["postgres"].port, query={})
    redis = make_url(direct.redis_url).set(port=proxies["redis"].port)
    return Stores(
        database.render_as_string(hide_password=False),
        f"kafka://127.0.0.1:{proxies['kafka'].port}",
        redis.render_as_string(hide_password=False),
    )


async def _new_database(url: str) -> str:
    name = f"chaos_{os.urandom(6).hex()}"
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return name

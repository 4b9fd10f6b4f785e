"""Every service as processes of its own, on real stores and on Kafka or a broker over HTTP."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_service.settings import ProviderKeys
from agent_service.settings import Settings as AgentSettings
from api_gateway.settings import Settings as GatewaySettings
from fleet.broker import OWN_BROKER, broker_command, events_secret, own_broker_url
from fleet.credentials import write_gateway_key
from fleet.embedding import ReportProgress
from fleet.migrate import migrate_all
from fleet.settings import FleetSettings, SettingsType, inherited_environment, own_environment, variables_of
from fleet.supervisor import Command, Supervisor
from local_backends import find_backend
from local_backends.server import free_port
from request_manager.settings import Settings as RequestSettings
from service_process.settings import EventSettings
from shared_clients.bus import ensure_topics
from shared_clients.errors import OutsideError, Permanent
from shared_clients.outbound import HttpClient
from shared_models.catalog import TOPICS
from shared_models.services import AGENT_SERVICE, API_GATEWAY, REQUEST_MANAGER, SERVICES, audiences

SETTINGS: Final[Mapping[str, tuple[SettingsType, ...]]] = {
    API_GATEWAY.name: (GatewaySettings,),
    REQUEST_MANAGER.name: (RequestSettings, EventSettings),
    AGENT_SERVICE.name: (AgentSettings, ProviderKeys, EventSettings),
}
"""The settings that each service reads; a process gets no other variable of a fleet."""
READY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Stores:
    """The addresses of the stores and the bus that all services share."""

    database_url: str
    bus_url: str
    redis_url: str


@dataclass(frozen=True, slots=True)
class Processes:
    """A fleet of processes that are all ready.

    Attributes:
        supervisor: the parent of the processes, which are named `<service>-<replica>`.
        commands: the command of each process, by the name of the process.
        urls: the base URLs of the gateways.
        stores: the stores and the bus of all services.
    """

    supervisor: Supervisor
    commands: Mapping[str, Command]
    urls: tuple[str, ...]
    stores: Stores


@asynccontextmanager
async def open_stores(
    settings: FleetSettings, state_folder: Path, report_progress: ReportProgress
) -> AsyncGenerator[Stores]:
    """Find or start Postgres, Redis and Kafka, each in a folder of its own in the state folder.

    A broker over HTTP is not started here: it is one of the processes.

    Raises:
        Permanent: one can be neither found nor started; the message says what to do.
    """
    async with AsyncExitStack() as stack:
        report_progress("finding Postgres")
        given_url = settings.database_url.get_secret_value() if settings.database_url else None
        folder = state_folder / "postgres-server"
        database_url = await stack.enter_async_context(find_backend("postgres", given_url, folder))
        report_progress("finding Redis")
        given_url = settings.redis_url.get_secret_value() if settings.redis_url else None
        redis_url = await stack.enter_async_context(find_backend("redis", given_url, state_folder / "redis"))
        bus_url = own_broker_url(settings.bus_url)
        if bus_url is None:
            report_progress("finding Kafka")
            bus_url = await stack.enter_async_context(find_backend("kafka", settings.bus_url, state_folder / "kafka"))
        yield Stores(database_url, bus_url, redis_url)


@asynccontextmanager
async def open_processes(
    settings: FleetSettings,
    state_folder: Path,
    dev_key: str,
    stores: Stores,
    *,
    replicas: Mapping[str, int],
    report_progress: ReportProgress,
) -> AsyncGenerator[Processes]:
    """Run every service, wait until all are ready, and stop them at the end.

    Args:
        settings: the port of the first gateway, the agent configuration and the log level.
        state_folder: the folder for keys and logs.
        dev_key: the one API key.
        stores: the stores and the bus of all services; schemas and topics are made where they are missing.
        replicas: the number of processes of a service; one where it is not named.
        report_progress: called with each step.

    Raises:
        Permanent: a process does not become ready; the message names its log.
    """
    report_progress("bringing the database up to date")
    await migrate_all(stores.database_url)
    await ensure_topics(stores.bus_url, TOPICS)
    commands = _commands(settings, state_folder, dev_key, stores, replicas=replicas)
    async with Supervisor(state_folder / "logs") as supervisor:
        report_progress(f"starting {len(commands)} processes")
        await supervisor.start(commands)
        await asyncio.gather(*(_wait_until_ready(command, state_folder) for command in commands))
        gateways = tuple(command.url for command in commands if command.module == API_GATEWAY.package)
        yield Processes(supervisor, {command.name: command for command in commands}, gateways, stores)


def _commands(
    settings: FleetSettings, state_folder: Path, dev_key: str, stores: Stores, *, replicas: Mapping[str, int]
) -> list[Command]:
    behind_gateway = sorted(audiences())
    if unknown := set(replicas) - {*behind_gateway, API_GATEWAY.name}:
        known = ", ".join([*behind_gateway, API_GATEWAY.name])
        raise Permanent(f"there is no service {min(unknown)}; the services are {known}")
    gateways = [settings.port + number for number in range(replicas.get(API_GATEWAY.name, 1))]
    ports = {name: [free_port() for _ in range(replicas.get(name, 1))] for name in behind_gateway}
    environment = inherited_environment()
    shared = {
        **environment,
        "FLOTILLA_MODE": "dev",
        "FLOTILLA_DATABASE_URL": stores.database_url,
        "FLOTILLA_BUS_URL": stores.bus_url,
        "FLOTILLA_REDIS_URL": stores.redis_url,
        "FLOTILLA_LOG_LEVEL": settings.log_level,
        "FLOTILLA_AGENT_CONFIGS": str(settings.agent_configs.resolve()),
        "FLOTILLA_AUTH_DEV_KEY": dev_key,
        "FLOTILLA_ALLOWED_HOSTS": ",".join(
            f"{name}:{port}" for port in gateways for name in ("localhost", "127.0.0.1", "[::1]")
        ),
        "FLOTILLA_LIMITS": environment.get("FLOTILLA_LIMITS") or json.dumps({"replicas": len(gateways)}),
        **_identity_keys(state_folder),
        **events_secret(state_folder),
        "FLOTILLA_SERVICE_URLS": json.dumps(
            {name: [f"http://127.0.0.1:{port}" for port in chosen] for name, chosen in ports.items()}
        ),
    }
    own_broker = stores.bus_url.startswith(OWN_BROKER)
    brokers = [broker_command(stores.bus_url, state_folder, ports, shared)] if own_broker else []
    return brokers + [
        Command(
            f"{name}-{number}",
            SERVICES[name].package,
            own_environment({**shared, "FLOTILLA_PORT": str(port)}, variables_of(*SETTINGS[name])),
            f"http://{'localhost' if name == API_GATEWAY.name else '127.0.0.1'}:{port}",
        )
        for name, chosen in {**ports, API_GATEWAY.name: gateways}.items()
        for number, port in enumerate(chosen, start=1)
    ]


def _identity_keys(state_folder: Path) -> dict[str, str]:
    """Return the paths of the gateway's signing key and of the keys that services trust, made the first time."""
    private, trusted = state_folder / "gateway-key.pem", state_folder / "trusted-keys.json"
    write_gateway_key(private, trusted)
    return {"FLOTILLA_AUTH_PRIVATE_KEY": str(private), "FLOTILLA_AUTH_TRUSTED_KEYS": str(trusted)}


async def _wait_until_ready(command: Command, state_folder: Path) -> None:
    async with HttpClient(command.url) as server:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await _is_ready(server):  # noqa: ASYNC110 - another process's readiness
                    await asyncio.sleep(0.1)
        except TimeoutError:
            log_file = state_folder / "logs" / f"{command.name}.log"
            raise Permanent(f"{command.name} is not ready after {READY_SECONDS:g} s; see {log_file}") from None


async def _is_ready(server: HttpClient) -> bool:
    try:
        await server.call("GET", "/readyz", deadline=1.0)
    except OutsideError:
        return False
    return True

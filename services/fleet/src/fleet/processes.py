"""Every service as a process of its own, N replicas each, on real stores, and Kafka or a broker over HTTP."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic_settings import BaseSettings

from agent_service.settings import ProviderKeys
from agent_service.settings import Settings as AgentSettings
from api_gateway.settings import Settings as GatewaySettings
from fleet.app import SERVICES
from fleet.broker import OWN, broker_command, events_secret, own_broker
from fleet.credentials import write_gateway_key
from fleet.embedding import Say
from fleet.migrate import migrate_all
from fleet.settings import FleetSettings, inherited, own_environment, variables_of
from fleet.supervisor import Command, Supervisor
from local_backends import found
from local_backends.server import free_port
from request_manager.settings import Settings as RequestSettings
from service_process.settings import EventSettings
from shared_clients.bus import ensure_topics
from shared_clients.errors import OutsideError, Permanent
from shared_clients.outbound import HttpClient
from shared_models.catalog import TOPICS

GATEWAY: Final = "api-gateway"
SETTINGS: Final[Mapping[str, tuple[type[BaseSettings], ...]]] = {
    GATEWAY: (GatewaySettings,),
    "request-manager": (RequestSettings, EventSettings),
    "agent-service": (AgentSettings, ProviderKeys, EventSettings),
}
"""The settings that each service reads; a process gets no other variable of a fleet."""
KINDS: Final = (*sorted(SERVICES), GATEWAY)
READY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Stores:
    """Addresses of what the services share."""

    database_url: str
    bus_url: str
    redis_url: str


@dataclass(frozen=True, slots=True)
class Processes:
    """A fleet of processes, ready.

    Attributes:
        supervisor: its children are named `<service>-<replica>`.
        commands: how each of them was started, by its name.
        urls: base URLs of the gateways.
        stores: what the services share.
    """

    supervisor: Supervisor
    commands: Mapping[str, Command]
    urls: tuple[str, ...]
    stores: Stores


@asynccontextmanager
async def open_stores(settings: FleetSettings, home: Path, say: Say) -> AsyncGenerator[Stores]:
    """Find or start Postgres, Redis and Kafka, each in its own folder of `home`; a broker is one of the processes.

    Raises:
        Permanent: one can be neither found nor started, with what to do.
    """
    async with AsyncExitStack() as stack:
        say("finding Postgres")
        given = settings.database_url.get_secret_value() if settings.database_url else None
        database_url = await stack.enter_async_context(found("postgres", given, home / "postgres-server"))
        say("finding Redis")
        given = settings.redis_url.get_secret_value() if settings.redis_url else None
        redis_url = await stack.enter_async_context(found("redis", given, home / "redis"))
        bus_url = own_broker(settings.bus_url)
        if bus_url is None:
            say("finding Kafka")
            bus_url = await stack.enter_async_context(found("kafka", settings.bus_url, home / "kafka"))
        yield Stores(database_url, bus_url, redis_url)


@asynccontextmanager
async def open_processes(
    settings: FleetSettings, home: Path, dev_key: str, stores: Stores, *, replicas: Mapping[str, int], say: Say
) -> AsyncGenerator[Processes]:
    """Run every service, wait until all are ready, and stop them at the end.

    Args:
        settings: port of the first gateway, agent configuration, log level.
        home: keys and logs are kept there.
        dev_key: the one API key.
        stores: what the services share; schemas and topics are made where they are missing.
        replicas: how many of a service; one unless it says otherwise.
        say: told what is being done.

    Raises:
        Permanent: a process does not become ready; the message names its log.
    """
    say("bringing the database up to date")
    await migrate_all(stores.database_url)
    await ensure_topics(stores.bus_url, TOPICS)
    commands = _commands(settings, home, dev_key, stores, replicas=replicas)
    async with Supervisor(home / "logs") as supervisor:
        say(f"starting {len(commands)} processes")
        await supervisor.start(commands)
        await asyncio.gather(*(_until_ready(command, home) for command in commands))
        gateways = tuple(command.url for command in commands if command.module == "api_gateway")
        yield Processes(supervisor, {command.name: command for command in commands}, gateways, stores)


def _commands(
    settings: FleetSettings, home: Path, dev_key: str, stores: Stores, *, replicas: Mapping[str, int]
) -> list[Command]:
    if unknown := set(replicas) - set(KINDS):
        raise Permanent(f"there is no service {min(unknown)}; the services are {', '.join(KINDS)}")
    gateways = [settings.port + number for number in range(replicas.get(GATEWAY, 1))]
    ports = {name: [free_port() for _ in range(replicas.get(name, 1))] for name in sorted(SERVICES)}
    shared = {
        **inherited(),
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
        "FLOTILLA_LIMITS": inherited().get("FLOTILLA_LIMITS") or json.dumps({"replicas": len(gateways)}),
        **_keys(home),
        **events_secret(home),
        "FLOTILLA_SERVICE_URLS": json.dumps(
            {name: [f"http://127.0.0.1:{port}" for port in chosen] for name, chosen in ports.items()}
        ),
    }
    brokers = [broker_command(stores.bus_url, home, ports, shared)] if stores.bus_url.startswith(OWN) else []
    return brokers + [
        Command(
            f"{name}-{number}",
            name.replace("-", "_"),
            own_environment({**shared, "FLOTILLA_PORT": str(port)}, variables_of(*SETTINGS[name])),
            f"http://{'localhost' if name == GATEWAY else '127.0.0.1'}:{port}",
        )
        for name, chosen in {**ports, GATEWAY: gateways}.items()
        for number, port in enumerate(chosen, start=1)
    ]


def _keys(home: Path) -> dict[str, str]:
    """Return where the gateway's key and the trust in it are, made the first time."""
    private, trusted = home / "gateway-key.pem", home / "trusted-keys.json"
    write_gateway_key(private, trusted)
    return {"FLOTILLA_AUTH_PRIVATE_KEY": str(private), "FLOTILLA_AUTH_TRUSTED_KEYS": str(trusted)}


async def _until_ready(command: Command, home: Path) -> None:
    async with HttpClient(command.url) as server:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await _ready(server):  # noqa: ASYNC110 - another process's readiness
                    await asyncio.sleep(0.1)
        except TimeoutError:
            what = f"{command.name} is not ready after {READY_SECONDS:g} s"
            raise Permanent(f"{what}; see {home / 'logs' / f'{command.name}.log'}") from None


async def _ready(server: HttpClient) -> bool:
    try:
        await server.call("GET", "/readyz", deadline=1.0)
    except OutsideError:
        return False
    return True

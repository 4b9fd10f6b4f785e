"""Every service in one process: embedded Postgres, a Redis and a bus in memory, and each service's own app.

It is the same code as in containers; only settings differ, and the services' apps are called directly where elsewhere
a `Forwarder` stands in.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from pydantic import SecretStr

import agent_service.app
import api_gateway.app
import request_manager.app
from agent_service.settings import ProviderKeys
from agent_service.settings import Settings as AgentSettings
from api_gateway.app import Gateway
from api_gateway.settings import Settings as GatewaySettings
from fleet.anchoring import Witness, anchoring
from fleet.embedding import Say, embedded_postgres
from fleet.migrate import migrate_all
from request_manager.settings import Settings as RequestSettings
from service_process.settings import Mode
from shared_clients.bus import open_bus
from shared_clients.identity import DevKey, Issuer, generate_key, trust
from shared_clients.redis import open_redis

SERVICES = frozenset({request_manager.app.NAME, agent_service.app.NAME})
"""The services behind the gateway."""


class Where(TypedDict):
    """The settings that all services of one process share."""

    mode: Mode
    database_url: SecretStr
    bus_url: str
    redis_url: SecretStr


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fleet lives.

    Attributes:
        home: its folder, with the embedded database in it.
        hosts: what a request's Host may be, separated by commas.
        dev_key: the one API key.
        agent_configs: the folder with agents and scripts.
        witness: signs the audit log's heads.
    """

    home: Path
    hosts: str
    dev_key: str
    agent_configs: Path
    witness: Witness


@asynccontextmanager
async def open_fleet(place: Place, say: Say) -> AsyncGenerator[Gateway]:
    """Open everything in this process; at the end it is closed in reverse, runs handed back first.

    Args:
        place: where it lives.
        say: told what is being done, for the person who waits.
    """
    async with AsyncExitStack() as stack:
        say("starting Postgres")
        url = await stack.enter_async_context(embedded_postgres(place.home / "postgres"))
        say("bringing the database up to date")
        await migrate_all(url)
        say("starting the services")
        bus = await stack.enter_async_context(open_bus("memory://"))
        redis = await stack.enter_async_context(open_redis("memory://"))
        key = generate_key()
        issuer = Issuer(api_gateway.app.NAME, key)
        trusted = trust(issuer.service, key.public_key(), SERVICES)
        where = Where(mode=Mode.DEV, database_url=SecretStr(url), bus_url="memory://", redis_url=SecretStr("memory://"))
        requests = await stack.enter_async_context(
            request_manager.app.open_app(RequestSettings(**where), bus, redis, trusted)
        )
        agents = await stack.enter_async_context(
            agent_service.app.open_app(
                AgentSettings(**where, agent_configs=place.agent_configs), ProviderKeys(), bus, redis, trusted=trusted
            )
        )
        services = {request_manager.app.NAME: requests, agent_service.app.NAME: agents}
        gateway = GatewaySettings(**where, allowed_hosts=place.hosts)
        opened = await stack.enter_async_context(
            api_gateway.app.open_app(gateway, services, redis, issuer, keys=DevKey(place.dev_key))
        )
        await stack.enter_async_context(anchoring(url, place.witness))
        yield opened

"""Every service in one process: embedded Postgres, a Redis and a bus in memory, and each service's own app.

The code is the same as in containers and only the settings differ. The gateway calls the apps of the services directly;
between processes a `Forwarder` takes their place.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
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
from fleet.embedding import ReportProgress, embedded_postgres
from fleet.migrate import migrate_all
from request_manager.settings import Settings as RequestSettings
from service_process.settings import Mode
from shared_clients.bus import open_bus
from shared_clients.identity import DevKey, Issuer, generate_key, trust
from shared_clients.redis import open_redis

SERVICES = frozenset({request_manager.app.NAME, agent_service.app.NAME})
"""The services behind the gateway."""


class SharedSettings(TypedDict):
    """The settings that all services of one process share."""

    mode: Mode
    database_url: SecretStr
    bus_url: str
    redis_url: SecretStr


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """The options of a fleet in one process.

    Attributes:
        state_folder: the folder with the embedded database in it.
        allowed_hosts: the Host headers that the gateway accepts, separated by commas.
        dev_key: the one API key.
        agent_configs: the folder with agents and scripts.
        witness: the signer of the audit log's heads.
    """

    state_folder: Path
    allowed_hosts: str
    dev_key: str = field(repr=False)
    agent_configs: Path
    witness: Witness


@asynccontextmanager
async def open_fleet(options: FleetOptions, report_progress: ReportProgress) -> AsyncGenerator[Gateway]:
    """Open all services in this process, and yield the gateway.

    At the end they are closed in reverse order; runs in progress are handed back first.
    """
    async with AsyncExitStack() as stack:
        report_progress("starting Postgres")
        url = await stack.enter_async_context(embedded_postgres(options.state_folder / "postgres"))
        report_progress("bringing the database up to date")
        await migrate_all(url)
        report_progress("starting the services")
        bus = await stack.enter_async_context(open_bus("memory://"))
        redis = await stack.enter_async_context(open_redis("memory://"))
        key = generate_key()
        issuer = Issuer(api_gateway.app.NAME, key)
        trusted = trust(issuer.service, key.public_key(), SERVICES)
        shared = SharedSettings(
            mode=Mode.DEV, database_url=SecretStr(url), bus_url="memory://", redis_url=SecretStr("memory://")
        )
        requests = await stack.enter_async_context(
            request_manager.app.open_app(RequestSettings(**shared), bus, redis, trusted)
        )
        agent_settings = AgentSettings(**shared, agent_configs=options.agent_configs)
        agents = await stack.enter_async_context(
            agent_service.app.open_app(agent_settings, ProviderKeys(), bus, redis, trusted=trusted)
        )
        services = {request_manager.app.NAME: requests, agent_service.app.NAME: agents}
        gateway_settings = GatewaySettings(**shared, allowed_hosts=options.allowed_hosts)
        gateway = await stack.enter_async_context(
            api_gateway.app.open_app(gateway_settings, services, redis, issuer, keys=DevKey(options.dev_key))
        )
        await stack.enter_async_context(anchoring(url, options.witness))
        yield gateway

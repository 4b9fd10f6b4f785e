"""Every service in one process: embedded Postgres, a Redis and a bus in memory, and each service's own app.

The code is the same as in containers and only the settings differ. The gateway calls the apps of the services directly;
between processes a `Forwarder` takes their place.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

import api_gateway.app
from agent_service.adapters.agents import AgentFolder
from api_gateway.app import Gateway
from api_gateway.settings import Settings as GatewaySettings
from fleet.anchoring import Witness, anchoring
from fleet.embedding import ReportProgress, embedded_postgres
from fleet.migrate import migrate_all
from fleet.opening import OPENING, SharedResources, SharedSettings
from service_process.settings import Mode, load_settings
from shared_clients.bus import open_bus
from shared_clients.identity import DevKey, Issuer, generate_key, trust
from shared_clients.redis import open_redis
from shared_models.services import API_GATEWAY, audiences


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """The options of a fleet in one process.

    Attributes:
        state_folder: the folder with the embedded database in it.
        allowed_hosts: the Host headers that the gateway accepts, separated by commas.
        dev_key: the one API key.
        agents: the agents, with their models and tools.
        witness: the signer of the audit log's heads.
    """

    state_folder: Path
    allowed_hosts: str
    dev_key: str = field(repr=False)
    agents: AgentFolder
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
        issuer = Issuer(API_GATEWAY.name, key)
        trusted = trust(issuer.service, key.public_key(), audiences())
        shared = SharedSettings(
            mode=Mode.DEV, database_url=SecretStr(url), bus_url="memory://", redis_url=SecretStr("memory://")
        )
        resources = SharedResources(shared, options.agents, bus, redis, trusted)
        services = {name: await stack.enter_async_context(opening(resources)) for name, opening in OPENING.items()}
        gateway_settings = load_settings(GatewaySettings, **shared, allowed_hosts=options.allowed_hosts)
        gateway = await stack.enter_async_context(
            api_gateway.app.open_app(gateway_settings, services, redis, issuer, keys=DevKey(options.dev_key))
        )
        await stack.enter_async_context(anchoring(url, options.witness))
        yield gateway

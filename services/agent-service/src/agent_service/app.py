"""The composition root of agent-service: the only file that puts all its parts together."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from agent_service import api, events, workers
from agent_service.adapters.agents import open_agents
from agent_service.domain.runs import ClaimedRun
from agent_service.queries.runs import RUNS
from agent_service.settings import ProviderKeys, Settings
from agent_service.usecases.end_run import fail_unpublishable_response
from agent_service.usecases.perform_run import RunDependencies
from durable_work.dead_letters import DeadLetters
from durable_work.inbox import Inbox
from durable_work.jobs import Slots, WorkerLease
from durable_work.outbox import Outbox
from service_process.dead_letters import dead_letter_routes
from service_process.settings import Mode
from service_process.web import create_app, event_routes
from shared_clients.bus.port import Bus
from shared_clients.identity import TrustedKeys, Verifier
from shared_clients.loops import Tasks
from shared_clients.postgres import open_database
from shared_clients.redis import Redis
from shared_models.catalog import topics_of

NAME: Final = "agent-service"
SCHEMA: Final = "agent_service"
MIGRATIONS: Final = Path(__file__).parent / "migrations" / "versions"


@asynccontextmanager
async def open_app(
    settings: Settings, keys: ProviderKeys, bus: Bus, redis: Redis, *, trusted: TrustedKeys
) -> AsyncGenerator[FastAPI]:
    """Open the database, agents, loops and app of the service; on leaving, hand the runs back before closing.

    Raises:
        ConfigError: an agent or script file cannot be used.
    """
    async with AsyncExitStack() as stack:
        agents = await stack.enter_async_context(
            open_agents(
                settings.agent_configs,
                settings.default_agent,
                keys.openai_api_key,
                keys.openai_base_url,
                scripted=settings.mode is Mode.DEV,
            )
        )
        database = await stack.enter_async_context(open_database(settings.database_url.get_secret_value(), SCHEMA))
        outbox = Outbox(
            database, bus, on_dead=lambda tx, event, error: fail_unpublishable_response(tx, outbox, event, error)
        )
        dependencies = RunDependencies(database, outbox, redis, agents)
        active_runs = workers.ActiveRuns(dependencies)
        lease = WorkerLease(database, (RUNS,))
        slots: Slots[ClaimedRun] = Slots(settings.slots, active_runs.perform, lease)
        inbox = Inbox(database, NAME, events.reactions(outbox, slots))
        verifier, letters = Verifier(NAME, trusted), DeadLetters(database, NAME)
        app = create_app(
            NAME,
            version="0.1.0",
            routers=[api.router, dead_letter_routes(letters, verifier), *event_routes(bus)],
            ready=database.ping,
            docs=settings.mode is Mode.DEV,
        )
        app.state.verifier = verifier
        app.state.database = database
        await stack.enter_async_context(outbox.running())
        stack.push_async_callback(lease.release)
        stack.push_async_callback(slots.close)
        await lease.renew()
        await stack.enter_async_context(bus.subscribe(NAME, topics_of(NAME), inbox.consume))
        tasks = await stack.enter_async_context(Tasks())
        workers.start(tasks, dependencies, inbox, letters=letters, lease=lease, slots=slots, active_runs=active_runs)
        yield app

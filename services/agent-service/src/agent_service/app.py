"""The composition root of agent-service: the parts that are its own, joined with those that every service has."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from agent_service import api, events, workers
from agent_service.adapters.agents import AgentFolder
from agent_service.domain.agents import AgentList
from agent_service.queries.runs import RUNS
from agent_service.settings import Settings
from agent_service.usecases.claim_runs import claim_runs
from agent_service.usecases.end_run import fail_unpublishable_response
from agent_service.usecases.note_agent_files import note_agent_files
from agent_service.usecases.perform_run import RunDependencies
from service_process.opening import open_service
from shared_clients.bus.port import Bus
from shared_clients.identity import TrustedKeys
from shared_clients.redis import Redis
from shared_models.services import AGENT_SERVICE

NAME: Final = AGENT_SERVICE.name
SCHEMA: Final = AGENT_SERVICE.schema
MIGRATIONS: Final = Path(__file__).parent / "migrations" / "versions"


@asynccontextmanager
async def open_app(
    settings: Settings, agents: AgentFolder, bus: Bus, redis: Redis, *, trusted: TrustedKeys
) -> AsyncGenerator[FastAPI]:
    """Open the database, loops and app of the service; on leaving, hand the runs back before closing.

    The agents are opened first, by the caller, so that a mistake in a file is found before anything else starts.
    """
    async with open_service(AGENT_SERVICE, settings) as opening:
        database = opening.database
        edited = await note_agent_files(database, agents.catalog.files)
        connection = opening.connect(bus, trusted, on_unpublishable=fail_unpublishable_response)
        outbox = connection.outbox
        dependencies = RunDependencies(database, outbox, redis, agents)
        active_runs = workers.ActiveRuns(dependencies)
        slots = opening.add_slots(
            (RUNS,),
            settings.slots,
            active_runs.perform,
            lambda worker, most, after, full: claim_runs(database, outbox, worker, most, after=after, full=full),
        )
        app = await opening.start(
            [api.router, api.agents, api.operations],
            reactions=events.reactions(outbox, slots),
            loops=workers.loops(dependencies, active_runs, slots.worker),
        )
        app.state.verifier = connection.verifier
        app.state.database = database
        app.state.agents = AgentList.of(agents.catalog, edited)
        yield app

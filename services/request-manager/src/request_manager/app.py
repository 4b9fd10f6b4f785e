"""The composition root of request-manager: it makes every part and joins them."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from durable_work.dead_letters import DeadLetters
from durable_work.inbox import Inbox
from durable_work.outbox import Outbox
from request_manager import api, workers
from request_manager.events import REACTIONS
from request_manager.settings import Settings
from request_manager.usecases.await_result import ended_runs
from request_manager.usecases.cancel_request import cancel_unpublishable_request
from request_manager.usecases.limit_pending import PendingLimit
from run_frames import FrameReader
from service_process.dead_letters import dead_letter_routes
from service_process.settings import Mode
from service_process.web import create_app, event_routes
from shared_clients.bus.port import Bus
from shared_clients.identity import TrustedKeys, Verifier
from shared_clients.loops import Tasks
from shared_clients.postgres import open_database
from shared_clients.redis import Redis
from shared_models.catalog import topics_of

NAME: Final = "request-manager"
SCHEMA: Final = "request_manager"
MIGRATIONS: Final = Path(__file__).parent / "migrations" / "versions"


@asynccontextmanager
async def open_app(settings: Settings, bus: Bus, redis: Redis, trusted: TrustedKeys) -> AsyncGenerator[FastAPI]:
    """Open the service's database, loops and app, and close them in reverse order at the end."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings.database_url.get_secret_value(), SCHEMA))
        outbox = Outbox(
            database, bus, on_dead=lambda tx, event, error: cancel_unpublishable_request(tx, outbox, event, error)
        )
        inbox = Inbox(database, NAME, REACTIONS)
        frames = await stack.enter_async_context(FrameReader(redis, partial(ended_runs, database)))
        verifier, letters = Verifier(NAME, trusted), DeadLetters(database, NAME)
        app = create_app(
            NAME,
            version="0.1.0",
            routers=[api.router, api.internal, dead_letter_routes(letters, verifier), *event_routes(bus)],
            ready=database.ping,
            docs=settings.mode is Mode.DEV,
        )
        pending_limit = PendingLimit(database, outbox, total=settings.max_pending, per_tenant=settings.tenant_pending)
        app.state.dependencies = api.RouteDependencies(
            database, outbox, frames, pending_limit, verifier, settings.lifetime
        )
        await stack.enter_async_context(outbox.running())
        await stack.enter_async_context(bus.subscribe(NAME, topics_of(NAME), inbox.consume))
        tasks = await stack.enter_async_context(Tasks())
        workers.start(
            tasks,
            database,
            outbox,
            inbox,
            letters=letters,
            pending_limit=pending_limit,
            key_lifetime=timedelta(hours=settings.idempotency_hours),
        )
        yield app

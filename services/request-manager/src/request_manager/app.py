"""The composition root of request-manager: the parts that are its own, joined with those that every service has."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from request_manager import api, workers
from request_manager.events import REACTIONS
from request_manager.settings import Settings
from request_manager.usecases.await_result import ended_runs
from request_manager.usecases.cancel_request import cancel_unpublishable_request
from request_manager.usecases.limit_pending import PendingLimit
from run_frames import FrameReader
from service_process.opening import open_service
from shared_clients.bus.port import Bus
from shared_clients.identity import TrustedKeys
from shared_clients.redis import Redis
from shared_models.services import REQUEST_MANAGER

NAME: Final = REQUEST_MANAGER.name
SCHEMA: Final = REQUEST_MANAGER.schema
MIGRATIONS: Final = Path(__file__).parent / "migrations" / "versions"


@asynccontextmanager
async def open_app(settings: Settings, bus: Bus, redis: Redis, trusted: TrustedKeys) -> AsyncGenerator[FastAPI]:
    """Open the service's database, loops and app, and close them in reverse order at the end."""
    async with open_service(REQUEST_MANAGER, settings) as opening:
        database = opening.database
        connection = opening.connect(bus, trusted, on_unpublishable=cancel_unpublishable_request)
        outbox, verifier = connection.outbox, connection.verifier
        frames = await opening.enter(FrameReader(redis, partial(ended_runs, database)))
        pending_limit = PendingLimit(database, outbox, total=settings.max_pending, per_tenant=settings.tenant_pending)
        key_lifetime = timedelta(hours=settings.idempotency_hours)
        yield await opening.start(
            [api.router, api.internal],
            reactions=REACTIONS,
            loops=workers.loops(database, outbox, pending_limit, key_lifetime),
            dependencies=api.RouteDependencies(database, outbox, frames, pending_limit, verifier, settings.lifetime),
        )

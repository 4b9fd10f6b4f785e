"""The composition root of the gateway: the only file that knows all of it."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.types import ASGIApp

from api_gateway import api, dead_letters, pages, workers
from api_gateway.admission import Admission, AdmissionLimits, Gate
from api_gateway.cookies import AnyOf, Browsers
from api_gateway.ends import ended_runs
from api_gateway.guard import CookieGuard, HostAllowList, NoBorrowedIdentity
from api_gateway.hop import Hop
from api_gateway.refusals import Refusals, RefusalWatch
from api_gateway.settings import Settings
from run_frames import FrameReader
from service_process.settings import Mode
from service_process.web import create_app
from shared_clients.identity import Credentials, Issuer
from shared_clients.loops import Tasks
from shared_clients.postgres import Database, open_database
from shared_clients.redis import Redis

NAME: Final = "api-gateway"
SCHEMA: Final = "api_gateway"
MIGRATIONS: Final = Path(__file__).parent / "migrations" / "versions"


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway, opened."""

    app: FastAPI
    database: Database


@asynccontextmanager
async def open_app(
    settings: Settings, services: Mapping[str, ASGIApp], redis: Redis, issuer: Issuer, *, keys: Credentials
) -> AsyncGenerator[Gateway]:
    """Open the gateway: its database, its reader of frames and its app.

    Args:
        settings: what it was told from outside.
        services: an ASGI app for each service it hands calls to.
        redis: where frames are.
        issuer: signs who asks.
        keys: knows callers by their key; cookies are known besides.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings.database_url.get_secret_value(), SCHEMA))
        hop = Hop(services, issuer)
        frames = await stack.enter_async_context(FrameReader(redis, partial(ended_runs, hop)))
        secure = settings.mode is Mode.PRODUCTION
        browsers = Browsers(database, secure=secure)
        app = create_app(
            NAME,
            version="0.1.0",
            routers=[dead_letters.router, api.router],
            ready=database.ping,
            docs=settings.mode is Mode.DEV,
        )
        app.mount("/", pages.create_pages())
        admission = Admission(AdmissionLimits.of(settings.limits), redis)
        app.state.means = api.Means(database, AnyOf(keys, browsers), browsers, hop, frames, admission)
        origins = frozenset(f"{'https' if secure else 'http'}://{host}" for host in settings.hosts)
        app.add_middleware(CookieGuard, cookie=browsers.cookie, origins=origins)
        refusals = Refusals()
        app.add_middleware(RefusalWatch, refusals=refusals)
        app.add_middleware(NoBorrowedIdentity)
        app.add_middleware(HostAllowList, allowed=settings.hosts)
        app.add_middleware(Gate, admission=admission)
        tasks = await stack.enter_async_context(Tasks())
        workers.start(tasks, app, database, frames, admission=admission, refusals=refusals)
        yield Gateway(app, database)

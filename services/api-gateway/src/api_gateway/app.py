"""The composition root of the gateway, which builds all its parts and connects them."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.types import ASGIApp

from api_gateway import api, api_docs, dead_letters, pages, unknown_paths, workers
from api_gateway.admission.concurrency import SIGN_IN_PATH, ConcurrencyLimiter, ConcurrencyMiddleware
from api_gateway.admission.limits import AdmissionLimits
from api_gateway.admission.rates import RateLimiter, SignInRate
from api_gateway.agent_names import AgentNames
from api_gateway.browser_sessions import AnyOf, BrowserSessions
from api_gateway.guard import DotSegmentCheck, HostAllowList, OriginCheck, StripInternalHeaders
from api_gateway.hop import Hop
from api_gateway.refusals import RefusalLog, RefusalMiddleware
from api_gateway.settings import Settings
from api_gateway.terminal_frames import terminal_frames_of
from run_frames import FrameReader
from service_process.opening import open_service
from service_process.settings import Mode
from service_process.web import BodyLimits
from shared_clients.identity import Credentials, Issuer
from shared_clients.postgres import Database
from shared_clients.redis import Redis
from shared_models.services import API_GATEWAY

NAME: Final = API_GATEWAY.name
SCHEMA: Final = API_GATEWAY.schema
MIGRATIONS: Final = Path(__file__).parent / "migrations" / "versions"
SIGN_IN_LIMITS: Final = BodyLimits(body_bytes=1024, receive_seconds=5.0)
"""The limits of a stranger's body, which holds a code and nothing else."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway, opened."""

    app: FastAPI
    database: Database


@asynccontextmanager
async def open_app(
    settings: Settings, services: Mapping[str, ASGIApp], redis: Redis, issuer: Issuer, *, keys: Credentials
) -> AsyncGenerator[Gateway]:
    """Open the gateway: its database, its reader of frames, its app and its loops.

    Args:
        settings: the process's settings.
        services: an ASGI app for each service that it calls.
        redis: holds the frames of runs, and the rate counters that gateways share.
        issuer: signs the caller's identity.
        keys: identifies callers by an API key; the session cookies of browsers are accepted besides.
    """
    async with open_service(API_GATEWAY, settings) as opening:
        database = opening.database
        hop = Hop(services, issuer)
        frames = await opening.enter(FrameReader(redis, partial(terminal_frames_of, hop)))
        secure = settings.mode is Mode.PRODUCTION
        docs = [api_docs.docs_routes()] if settings.mode is Mode.DEV else []
        browsers = BrowserSessions(database, secure=secure, port=settings.public_port)
        limits = AdmissionLimits.from_setting(settings.limits)
        concurrency, rates = ConcurrencyLimiter(limits), RateLimiter(limits, redis)
        refusals = RefusalLog()
        dependencies = api.RouteDependencies(
            database=database,
            credentials=AnyOf(keys, browsers),
            browsers=browsers,
            hop=hop,
            agents=AgentNames(hop),
            frames=frames,
            concurrency=concurrency,
            rates=rates,
            sign_in_rate=SignInRate(limits),
        )
        app = await opening.start(
            [dead_letters.router, api.router, *docs, unknown_paths.router],
            loops=workers.loops(opening.draining, database, frames, rates=rates, refusals=refusals),
            dependencies=dependencies,
            docs=False,
            public=True,
            limits_at={SIGN_IN_PATH: SIGN_IN_LIMITS},
        )
        app.mount("/", pages.create_pages())
        origins = frozenset(f"{'https' if secure else 'http'}://{host}" for host in settings.hosts)
        app.add_middleware(OriginCheck, cookie=browsers.cookie, origins=origins, sign_in=SIGN_IN_PATH)
        app.add_middleware(RefusalMiddleware, refusals=refusals)
        app.add_middleware(StripInternalHeaders)
        app.add_middleware(DotSegmentCheck)
        app.add_middleware(HostAllowList, allowed=settings.hosts)
        app.add_middleware(ConcurrencyMiddleware, limiter=concurrency)
        yield Gateway(app, database)

"""The app factory: the parts of HTTP that are the same in every service."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Final

import structlog
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service_process.web.edge import EdgeApp
from service_process.web.problems import on_http_exception, on_invalid_parameters, on_problem, on_transient, on_unknown
from service_process.web.request_guard import BodyLimits, RequestGuard
from shared_clients import metrics
from shared_clients.errors import OutsideError, Transient, Unknown
from shared_models.problems import Problem, Problems

log = structlog.get_logger()

HEALTH: Final = frozenset({"/livez", "/readyz"})
METRICS: Final = "/metrics"
PROBES: Final = HEALTH | {METRICS}
VERSION: Final = "0.1.0"
"""The version of all services, which are released together."""


type Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(
    name: str,
    *,
    routers: Sequence[APIRouter],
    ready: Callable[[], Awaitable[None]],
    limits: BodyLimits = BodyLimits(),  # noqa: B008 - frozen
    limits_at: Mapping[str, BodyLimits] = MappingProxyType({}),
    docs: bool = False,
    draining: asyncio.Event | None = None,
    public: bool = False,
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """Return a service's app.

    Args:
        name: of the service, for people.
        routers: the routes of the service.
        ready: returns while the service can do its work, and otherwise raises one of `shared_clients.errors`.
        limits: of the body of one request.
        limits_at: other limits for some paths, by path.
        docs: serve `/openapi.json`; never in production. There is no page for it, because FastAPI's documentation page
            loads scripts from a CDN.
        draining: becomes `app.state.draining`; by default a new event.
        public: strangers reach it, so it continues no trace of theirs, and has `/metrics` only together with `docs`.
        lifespan: opens and closes the resources of the service.

    `app.state.draining` is an asyncio.Event: once it is set, the service is not ready, and open streams end.
    """
    app = EdgeApp(
        title=name,
        version=VERSION,
        lifespan=lifespan,
        openapi_url="/openapi.json" if docs else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=True,
        telemetry={
            "operation_spans": False,
            "metrics": False,
            "logs": False,
            "auto_configure": False,
            "exclude": _probe,
        },
    )
    app.public = public
    app.state.draining = asyncio.Event() if draining is None else draining
    app.add_middleware(RequestGuard, limits, limits_at)
    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(Transient, on_transient)
    app.add_exception_handler(Unknown, on_unknown)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_invalid_parameters)
    for router in routers:
        app.include_router(router)
    app.include_router(_health(app.state.draining, ready, limits.ready_seconds), include_in_schema=False)
    if docs or not public:
        add_metrics(app)
    return app


def add_metrics(app: FastAPI) -> None:
    """Serve the metrics of this process at `/metrics`."""
    app.add_api_route(METRICS, _metrics, methods=["GET"], include_in_schema=False)


def draining(app: FastAPI) -> asyncio.Event:
    """Return the event that is set when this app stops; routes with open responses wait for it."""
    event: asyncio.Event = app.state.draining
    return event


def _probe(scope: MutableMapping[str, Any]) -> bool:
    return scope["path"] in PROBES


async def _metrics() -> Response:
    return Response(metrics.scrape(), headers={"Content-Type": metrics.MEDIA_TYPE})


def _health(is_draining: asyncio.Event, ready: Callable[[], Awaitable[None]], seconds: float) -> APIRouter:
    router = APIRouter()

    async def livez() -> Response:
        return Response("alive\n", media_type="text/plain")

    async def readyz() -> Response:
        if is_draining.is_set():
            raise Problem(Problems.UNAVAILABLE, "this process is stopping")
        try:
            async with asyncio.timeout(seconds):
                await ready()
        except (OutsideError, TimeoutError) as error:
            log.warning("not_ready", error=str(error) or f"the check took longer than {seconds:g} s")
            raise Problem(Problems.UNAVAILABLE, "something that this service needs does not answer") from error
        return Response("ready\n", media_type="text/plain")

    for path, endpoint in (("/livez", livez), ("/readyz", readyz)):
        router.add_api_route(path, endpoint, methods=["GET"])
    return router

"""Running a service as a process of its own: check the settings, open bus and Redis, serve until asked to stop."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI

from service_process.serving import run, serve
from service_process.settings import ProcessSettings
from service_process.web import draining
from shared_clients.bus import open_bus
from shared_clients.bus.port import Bus
from shared_clients.failpoints import arm
from shared_clients.redis import Redis, open_redis
from shared_clients.telemetry import configure
from shared_models.services import CatalogueEntry


async def prepare(entry: CatalogueEntry, settings: ProcessSettings) -> None:
    """Refuse unfit settings, arm failpoints, and configure logs and traces; before anything is opened.

    Raises:
        Permanent: names the setting, or the role of the database, that this mode forbids.
    """
    settings.refuse_if_unfit()
    await settings.refuse_if_role_unfit()
    arm(settings.failpoints, entry.name)
    configure(entry.name, level=settings.log_level, json=True, otlp_endpoint=settings.otlp_endpoint)


def run_service[S: ProcessSettings](
    entry: CatalogueEntry,
    read_settings: Callable[[], S],
    open_app: Callable[[S, Bus, Redis], AbstractAsyncContextManager[FastAPI]],
) -> None:
    """Run a service that exchanges events until a signal comes.

    Args:
        entry: the service in the catalogue.
        read_settings: reads the environment.
        open_app: opens the service's app.
    """

    async def main() -> None:
        settings = read_settings()
        await prepare(entry, settings)
        async with (
            open_bus(settings.bus_url, settings.broker_authentication(entry.name)) as bus,
            open_redis(settings.redis_url.get_secret_value()) as redis,
            open_app(settings, bus, redis) as app,
        ):
            await serve(app, host=settings.host, port=settings.port, draining=draining(app).set)

    run(main)

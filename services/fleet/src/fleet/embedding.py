"""The database of a fleet on a laptop: the one that the settings name, or the embedded one in the state folder."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fleet.settings import FleetSettings
from fleet.state_folder import open_state_folder
from local_backends.embedded import EmbeddedPostgres
from shared_clients.errors import Transient
from shared_clients.postgres import open_database

ReportProgress = Callable[[str], None]
"""Called with each step of a start as it begins, for the person who waits."""


@asynccontextmanager
async def embedded_postgres(folder: Path) -> AsyncGenerator[str]:
    """Run the embedded Postgres of a folder, and yield its URL."""
    postgres = EmbeddedPostgres(folder)
    url = await postgres.start()
    try:
        yield url
    finally:
        await postgres.stop()


@asynccontextmanager
async def configured_database(settings: FleetSettings) -> AsyncGenerator[str]:
    """Yield FLOTILLA_DATABASE_URL, or the URL of the embedded Postgres, which runs while the context is open."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    async with embedded_postgres(open_state_folder(settings.home) / "postgres") as url:
        yield url


@asynccontextmanager
async def reachable_database(settings: FleetSettings) -> AsyncGenerator[str]:
    """Yield the URL of `configured_database`, also while a running fleet owns the embedded Postgres."""
    if settings.database_url is None:
        owned_by_fleet = EmbeddedPostgres(open_state_folder(settings.home) / "postgres").url()
        if await _accepts_connections(owned_by_fleet):
            yield owned_by_fleet
            return
    async with configured_database(settings) as url:
        yield url


async def _accepts_connections(url: str) -> bool:
    try:
        async with open_database(url, "public", pool_size=1) as database:
            await database.ping()
    except Transient:
        return False
    return True

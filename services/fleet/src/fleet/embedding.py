"""The database of a laptop's fleet: the one that is named, or the embedded one in its home."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fleet.home import open_home
from fleet.settings import FleetSettings
from local_backends.embedded import EmbeddedPostgres
from shared_clients.errors import Transient
from shared_clients.postgres import open_database

Say = Callable[[str], None]
"""Told what is being done, for a person who waits."""


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
async def database_of(settings: FleetSettings) -> AsyncGenerator[str]:
    """Yield the URL of FLOTILLA_DATABASE_URL, or of the embedded Postgres while the context is open."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    async with embedded_postgres(open_home(settings.home) / "postgres") as url:
        yield url


@asynccontextmanager
async def reachable_database(settings: FleetSettings) -> AsyncGenerator[str]:
    """Yield the URL of `database_of`, or of the embedded Postgres that a fleet is running at this moment."""
    if settings.database_url is None:
        running = EmbeddedPostgres(open_home(settings.home) / "postgres").url()
        if await _answers(running):
            yield running
            return
    async with database_of(settings) as url:
        yield url


async def _answers(url: str) -> bool:
    try:
        async with open_database(url, "public", pool_size=1) as database:
            await database.ping()
    except Transient:
        return False
    return True

"""Bring the database up to date: every service's schema, each with the tables of durable work."""

from importlib.resources import files
from pathlib import Path
from typing import Final

from durable_work.migrating import migrate
from fleet.embedding import configured_database
from fleet.settings import read_settings
from shared_clients.bus import ensure_topics
from shared_models.catalog import TOPICS
from shared_models.services import CatalogueEntry, schemas


def revisions_of(entry: CatalogueEntry) -> Path:
    """Return the folder of a service's Alembic revisions, which its package carries."""
    return Path(str(files(entry.package))) / "migrations" / "versions"


SCHEMAS: Final[dict[str, Path]] = {schema: revisions_of(entry) for schema, entry in schemas().items()}
"""The revisions of every schema in the catalogue of services."""


async def migrate_all(url: str) -> None:
    """Migrate every schema; several processes may call it at once, and calling it again changes nothing."""
    for schema, versions in SCHEMAS.items():
        await migrate(url, schema, versions)


async def migrate_here() -> list[str]:
    """Migrate the configured or embedded database, make the topics that are missing, and return the schemas."""
    settings = read_settings()
    async with configured_database(settings) as url:
        await migrate_all(url)
    if settings.bus_url is not None:
        await ensure_topics(settings.bus_url, TOPICS)
    return sorted(SCHEMAS)

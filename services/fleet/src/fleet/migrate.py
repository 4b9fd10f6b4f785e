"""Bring the database up to date: every service's schema, each with the tables of durable work."""

from pathlib import Path
from typing import Final

import agent_service.app
import api_gateway.app
import request_manager.app
from durable_work.migrating import migrate
from fleet.embedding import configured_database
from fleet.settings import read_settings
from shared_clients.bus import ensure_topics
from shared_models.catalog import TOPICS

SCHEMAS: Final[dict[str, Path]] = {
    service.SCHEMA: service.MIGRATIONS for service in (request_manager.app, agent_service.app, api_gateway.app)
}


async def migrate_all(url: str) -> None:
    """Migrate every schema; several processes may do it at once, and again."""
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

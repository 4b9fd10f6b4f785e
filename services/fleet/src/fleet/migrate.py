"""Bring the database up to date: every service's schema, each with the durable-work tables."""

from pathlib import Path
from typing import Final

import agent_service.app
import api_gateway.app
import request_manager.app
from durable_work.migrating import migrate

SCHEMAS: Final[dict[str, Path]] = {
    service.SCHEMA: service.MIGRATIONS for service in (request_manager.app, agent_service.app, api_gateway.app)
}


async def migrate_all(url: str) -> None:
    """Migrate every schema; safe to call again, and at once from several processes."""
    for schema, versions in SCHEMAS.items():
        await migrate(url, schema, versions)

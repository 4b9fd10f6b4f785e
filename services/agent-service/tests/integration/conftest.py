"""agent-service's schema on real Postgres, migrated once and copied for each module."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
import pytest_asyncio

from agent_service.app import MIGRATIONS, SCHEMA
from durable_work.migrating import migrate
from shared_clients.postgres import Database, open_database
from tests.simulators.working import emptied


@pytest.fixture(scope="session")
def template(new_database: Callable[..., str]) -> str:
    url = new_database()
    asyncio.run(migrate(url, SCHEMA, MIGRATIONS))
    return url


@pytest.fixture(scope="module")
def database_url(new_database: Callable[..., str], template: str) -> str:
    return new_database(like=template)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(database_url: str) -> AsyncGenerator[Database]:
    async with open_database(database_url, SCHEMA, pool_size=12) as database:
        yield database


@pytest_asyncio.fixture(loop_scope="module")
async def database(opened: Database) -> Database:
    """The module's schema, without a row: workers take whatever is there."""
    return await emptied(opened)

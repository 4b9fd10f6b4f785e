"""A schema with nothing but the tables of durable work, on real Postgres.

Faked: the bus, by one that fails on demand.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from durable_work.migrating import migrate
from shared_clients.postgres import Database, open_database
from tests.simulators.bus import ScriptedBus

SCHEMA = "durable"


@pytest.fixture(scope="session")
def durable_template(new_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """An address of a database that is migrated once and copied for each test."""
    url = new_database()
    asyncio.run(migrate(url, SCHEMA, tmp_path_factory.mktemp("no-revisions-of-its-own")))
    return url


@pytest.fixture
async def database(new_database: Callable[..., str], durable_template: str) -> AsyncGenerator[Database]:
    async with open_database(new_database(like=durable_template), SCHEMA) as opened:
        yield opened


@pytest.fixture
def bus() -> ScriptedBus:
    return ScriptedBus()

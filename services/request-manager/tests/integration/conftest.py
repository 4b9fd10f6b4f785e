"""request-manager on real Postgres, with the bus and the Redis of one process.

Faked: nothing. The tests play the services around it: they sign identities as the gateway does, and send the events of
agent-service.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
import pytest_asyncio

from durable_work.migrating import migrate
from durable_work.outbox import Outbox
from request_manager.app import MIGRATIONS, SCHEMA
from shared_clients.bus.memory import MemoryBus
from shared_clients.postgres import Database, open_database
from tests.simulators.asking import Asking


@pytest.fixture(scope="session")
def template(new_database: Callable[..., str]) -> str:
    """An address of a database that is migrated once and copied for each module."""
    url = new_database()
    asyncio.run(migrate(url, SCHEMA, MIGRATIONS))
    return url


@pytest.fixture(scope="module")
def database_url(new_database: Callable[..., str], template: str) -> str:
    return new_database(like=template)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(database_url: str) -> AsyncGenerator[Database]:
    async with open_database(database_url, SCHEMA, pool_size=16) as opened:
        yield opened


@pytest.fixture
def ask(database: Database) -> Asking:
    """Accept requests; their events stay in the outbox, as if the process had died after each commit."""
    return Asking(database, Outbox(database, MemoryBus()))

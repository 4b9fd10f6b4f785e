"""A schema with nothing but the tables of durable work, on real Postgres.

Faked: the bus, by one that fails on demand.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from shared_clients.bus.port import Handler, Message
from shared_clients.errors import Permanent, Transient
from shared_clients.migrating import migrate
from shared_clients.postgres import Database, open_database

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


class Scripted:
    """A bus that keeps what it is given, or fails as it is told, one word for each publish."""

    def __init__(self) -> None:
        self.safe: list[Message] = []
        self.faults: list[type[Transient | Permanent]] = []
        self.tries = 0

    async def publish(self, message: Message) -> None:
        self.tries += 1
        if self.faults:
            raise self.faults.pop(0)("as scripted")
        self.safe.append(message)

    @asynccontextmanager
    async def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> AsyncGenerator[None]:
        del group, topics, handler
        yield

    async def close(self) -> None:
        return


@pytest.fixture
def bus() -> Scripted:
    return Scripted()

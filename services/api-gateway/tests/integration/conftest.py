"""The gateway with the real services behind it, opened once for each module."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import httpx
import pytest
import pytest_asyncio

from fleet.migrate import migrate_all
from tests.simulators.house import House, open_house


@pytest.fixture(scope="session")
def template(new_database: Callable[..., str]) -> str:
    """The URL of a database with all schemas, which each module copies."""
    url = new_database()
    asyncio.run(migrate_all(url))
    return url


@pytest.fixture(scope="module")
def database_url(new_database: Callable[..., str], template: str) -> str:
    return new_database(like=template)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[House]:
    async with open_house(database_url, tmp_path_factory.mktemp("agent-configs")) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def client(house: House) -> AsyncGenerator[httpx.AsyncClient]:
    """A client with the developer's key."""
    async with house.client() as client:
        yield client

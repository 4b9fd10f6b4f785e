"""A schema with only the tables of durable work on a real Postgres, and a run whose frames are written and read.

Faked: the bus, by one that fails on demand; the durable rows of runs, by a dict.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import pytest

from durable_work.migrating import migrate
from run_frames import FrameReader
from shared_clients.postgres import Database, open_database
from shared_clients.redis import Redis, open_redis
from tests.simulators.bus import ScriptedBus
from tests.simulators.streams import Rows, Run

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


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    async with open_redis("memory://" if request.param == "memory" else request.getfixturevalue("redis_url")) as redis:
        yield redis


@pytest.fixture
def run(redis: Redis) -> Run:
    return Run(redis)


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
async def reader(redis: Redis, rows: Rows) -> AsyncIterator[FrameReader]:
    async with FrameReader(redis, rows) as reader:
        yield reader

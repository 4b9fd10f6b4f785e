"""What the tests of faults look through; before each of them, everything that an earlier one has killed is up again."""

from collections.abc import AsyncIterator

import aiohttp
import asyncpg
import pytest
from redis.asyncio import Redis

from tests.client import Client
from tests.fleets import ProcessFleet
from tests.processes.watching import MEASURED, Provider, Tables, everybody_is_up


@pytest.fixture
async def provider(simulator_url: str) -> AsyncIterator[Provider]:
    async with aiohttp.ClientSession() as session:
        yield Provider(simulator_url.removesuffix("/v1"), session)


@pytest.fixture
async def tables(process_fleet: ProcessFleet) -> AsyncIterator[Tables]:
    stores = process_fleet.stores
    address = stores.database_url.replace("+asyncpg", "")
    postgres = await asyncpg.connect(address, server_settings={"search_path": "agent_service"})
    async with Redis.from_url(stores.redis_url, protocol=2) as redis:
        yield Tables(postgres, redis)
    await postgres.close()


@pytest.fixture
async def client(process_fleet: ProcessFleet, tables: Tables) -> AsyncIterator[Client]:
    async with Client(process_fleet) as client:
        await everybody_is_up(process_fleet, client, tables)
        yield client


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MEASURED:
        terminalreporter.section("faults: how long it took to recover")
    for line in MEASURED:
        terminalreporter.line(line)

"""When there is no room: refused before any work, soon and with a hint, and taken again as soon as there is."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from time import monotonic

import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx import Response
from pydantic import SecretStr

from request_manager.app import NAME, open_app
from request_manager.settings import Settings
from shared_clients.bus.memory import MemoryBus
from shared_clients.postgres import Database, open_database, sql
from shared_clients.redis import open_redis
from shared_clients.settings import Mode
from tests.simulators.calling import Caller, trusted

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUESTS = "/api/v1/requests"
POOL = 8


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(database_url: str) -> AsyncGenerator[FastAPI]:
    settings = Settings(
        mode=Mode.DEV,
        database_url=SecretStr(database_url),
        bus_url="memory://",
        redis_url=SecretStr("memory://"),
    )
    async with open_redis("memory://") as redis:
        bus = MemoryBus()
        async with open_app(settings, bus, redis, trusted(NAME)) as app:
            yield app
        await bus.close()


@pytest_asyncio.fixture(loop_scope="module")
async def caller(app: FastAPI) -> Caller:
    return Caller(app, NAME)


def refused(answer: Response, slug: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (503, f"urn:flotilla:problem:{slug}"), answer.text
    assert int(answer.headers["retry-after"]) >= 1


async def count(database: Database) -> int:
    async with database.reading() as tx:
        row = await tx.row(sql("SELECT count(*) AS requests FROM requests"))
    assert row is not None
    return int(row["requests"])


async def test_nothing_is_taken_on_while_the_outbox_is_full(app: FastAPI, caller: Caller) -> None:
    means = app.state.means
    assert (await caller("POST", REQUESTS, json={"content": "hi"})).status_code == 202
    before = await count(means.database)
    means.outbox.full = True
    refused(await caller("POST", REQUESTS, json={"content": "hi"}), "overloaded")
    refused(await caller("POST", REQUESTS, content=b"not even JSON"), "overloaded")
    assert await count(means.database) == before
    assert (await caller("GET", REQUESTS)).status_code == 200
    means.outbox.full = False
    assert (await caller("POST", REQUESTS, json={"content": "hi"})).status_code == 202


async def test_an_exhausted_pool_is_said_soon_and_heals(app: FastAPI, caller: Caller, database_url: str) -> None:
    database: Database = app.state.means.database
    async with open_database(database_url, "request_manager") as other:
        before = await count(other)
        async with AsyncExitStack() as stack:
            for _ in range(POOL):
                tx = await stack.enter_async_context(database.transaction())
                await tx.run(sql("SELECT 1"))
            began = monotonic()
            refused(await caller("POST", REQUESTS, json={"content": "hi"}), "unavailable")
            assert monotonic() - began < 5
            assert (await caller.raw("GET", "/livez")).status_code == 200
            assert (await caller.raw("GET", "/readyz")).status_code == 503
        assert await count(other) == before
    assert (await caller("POST", REQUESTS, json={"content": "hi"})).status_code == 202
    assert (await caller.raw("GET", "/readyz")).status_code == 200

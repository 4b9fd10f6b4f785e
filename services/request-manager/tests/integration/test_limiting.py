"""Over a limit a request is refused before any work, soon and with Retry-After, and accepted again below it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import replace
from time import monotonic
from uuid import UUID

import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx import Response
from pydantic import SecretStr

from request_manager.app import NAME, open_app
from request_manager.queries.reconciling import count_pending_by_tenant
from request_manager.settings import Settings
from request_manager.usecases.limit_pending import PendingLimit
from service_process.settings import Mode
from shared_clients.bus.memory import MemoryBus
from shared_clients.postgres import Database, open_database, sql
from shared_clients.redis import open_redis
from tests.problems import problem
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


async def count_requests(database: Database) -> int:
    async with database.autocommit() as tx:
        row = await tx.row(sql("SELECT count(*) AS requests FROM requests"))
    assert row is not None
    return int(row["requests"])


async def test_requests_are_refused_while_the_outbox_is_full(app: FastAPI, caller: Caller) -> None:
    dependencies = app.state.dependencies
    assert (await caller("POST", REQUESTS, json={"content": "hi"})).status_code == 202
    before = await count_requests(dependencies.database)
    dependencies.outbox.full = True
    refused(await caller("POST", REQUESTS, json={"content": "hi"}), "overloaded")
    refused(await caller("POST", REQUESTS, content=b"not even JSON"), "overloaded")
    assert await count_requests(dependencies.database) == before
    assert (await caller("GET", REQUESTS)).status_code == 200
    dependencies.outbox.full = False
    assert (await caller("POST", REQUESTS, json={"content": "hi"})).status_code == 202


async def test_exhausted_pool_is_reported_soon_and_recovers(app: FastAPI, caller: Caller, database_url: str) -> None:
    database: Database = app.state.dependencies.database
    async with open_database(database_url, "request_manager") as other:
        before = await count_requests(other)
        async with AsyncExitStack() as stack:
            for _ in range(POOL):
                tx = await stack.enter_async_context(database.transaction())
                await tx.run(sql("SELECT 1"))
            began = monotonic()
            refused(await caller("POST", REQUESTS, json={"content": "hi"}), "unavailable")
            assert monotonic() - began < 5
            assert (await caller.raw("GET", "/livez")).status_code == 200
            assert (await caller.raw("GET", "/readyz")).status_code == 503
        assert await count_requests(other) == before
    assert (await caller("POST", REQUESTS, json={"content": "hi"})).status_code == 202
    assert (await caller.raw("GET", "/readyz")).status_code == 200


def bounded(app: FastAPI, *, total: int, per_tenant: int) -> PendingLimit:
    """Give the app a limit that few requests reach."""
    dependencies = app.state.dependencies
    limit = PendingLimit(dependencies.database, dependencies.outbox, total=total, per_tenant=per_tenant)
    app.state.dependencies = replace(dependencies, pending_limit=limit)
    return limit


async def test_tenant_over_its_limit_is_refused_and_others_are_not(app: FastAPI, caller: Caller) -> None:
    database: Database = app.state.dependencies.database
    neighbour = caller.another(tenant="elsewhere")
    mine = (await count_pending_by_tenant(database)).get(caller.principal.tenant, 0)
    limit = bounded(app, total=1000, per_tenant=mine + 1)
    await limit.measure()
    last = await caller("POST", REQUESTS, json={"content": "hi"})
    assert last.status_code == 202
    await limit.measure()
    before = await count_requests(database)
    answer = await caller("POST", REQUESTS, json={"content": "hi"})
    assert f"{mine + 1} requests" in problem(answer, 429, "rate-limited")
    assert int(answer.headers["retry-after"]) >= 1
    assert await count_requests(database) == before
    assert (await caller("GET", REQUESTS)).status_code == 200
    assert (await neighbour("POST", REQUESTS, json={"content": "hi"})).status_code == 202
    async with database.transaction() as tx:
        await tx.run(
            sql("UPDATE requests SET completed_at = now() WHERE request_id = :id"), id=UUID(last.json()["request_id"])
        )
    await limit.measure()
    assert (await caller("POST", REQUESTS, json={"content": "hi"})).status_code == 202


async def test_requests_over_the_total_limit_are_refused(app: FastAPI, caller: Caller) -> None:
    database: Database = app.state.dependencies.database
    pending = sum((await count_pending_by_tenant(database)).values())
    limit = bounded(app, total=pending + 1, per_tenant=1000)
    await limit.measure()
    assert (await caller("POST", REQUESTS, json={"content": "hi"})).status_code == 202
    await limit.measure()
    before = await count_requests(database)
    refused(await caller("POST", REQUESTS, json={"content": "hi"}), "overloaded")
    refused(await caller.another(tenant="elsewhere")("POST", REQUESTS, json={"content": "hi"}), "overloaded")
    assert await count_requests(database) == before


async def test_pending_requests_are_counted_every_second(database_url: str) -> None:
    settings = Settings(
        mode=Mode.DEV,
        database_url=SecretStr(database_url),
        bus_url="memory://",
        redis_url=SecretStr("memory://"),
        max_pending=1,
    )
    bus = MemoryBus()
    async with open_redis("memory://") as redis, open_app(settings, bus, redis, trusted(NAME)) as app:
        caller = Caller(app, NAME)
        async with asyncio.timeout(10):
            while (answer := await caller("POST", REQUESTS, json={"content": "hi"})).status_code == 202:
                pass
    await bus.close()
    refused(answer, "overloaded")

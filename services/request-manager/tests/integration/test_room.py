"""When there is no room: refused before any work, soon and with a hint, and taken again as soon as there is."""

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
from request_manager.queries import pending_by_tenant
from request_manager.settings import Settings
from request_manager.usecases.keep_room import Room
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


async def count(database: Database) -> int:
    async with database.autocommit() as tx:
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


def bounded(app: FastAPI, *, pending: int, tenant_pending: int) -> Room:
    """Give the app bounds that few requests reach; what is counted is the database's."""
    means = app.state.means
    room = Room(means.database, means.outbox, pending=pending, tenant_pending=tenant_pending)
    app.state.means = replace(means, room=room)
    return room


async def test_a_tenant_with_its_hands_full_waits_and_others_do_not(app: FastAPI, caller: Caller) -> None:
    database: Database = app.state.means.database
    neighbour = caller.another(tenant="elsewhere")
    mine = (await pending_by_tenant(database)).get(caller.principal.tenant, 0)
    room = bounded(app, pending=1000, tenant_pending=mine + 1)
    await room.count()
    last = await caller("POST", REQUESTS, json={"content": "hi"})
    assert last.status_code == 202
    await room.count()
    before = await count(database)
    answer = await caller("POST", REQUESTS, json={"content": "hi"})
    assert f"{mine + 1} requests" in problem(answer, 429, "rate-limited")
    assert int(answer.headers["retry-after"]) >= 1
    assert await count(database) == before
    assert (await caller("GET", REQUESTS)).status_code == 200
    assert (await neighbour("POST", REQUESTS, json={"content": "hi"})).status_code == 202
    async with database.transaction() as tx:
        await tx.run(
            sql("UPDATE requests SET completed_at = now() WHERE request_id = :id"), id=UUID(last.json()["request_id"])
        )
    await room.count()
    assert (await caller("POST", REQUESTS, json={"content": "hi"})).status_code == 202


async def test_no_more_is_taken_on_than_the_platform_can_deal_with(app: FastAPI, caller: Caller) -> None:
    database: Database = app.state.means.database
    waiting = sum((await pending_by_tenant(database)).values())
    room = bounded(app, pending=waiting + 1, tenant_pending=1000)
    await room.count()
    assert (await caller("POST", REQUESTS, json={"content": "hi"})).status_code == 202
    await room.count()
    before = await count(database)
    refused(await caller("POST", REQUESTS, json={"content": "hi"}), "overloaded")
    refused(await caller.another(tenant="elsewhere")("POST", REQUESTS, json={"content": "hi"}), "overloaded")
    assert await count(database) == before


async def test_what_waits_is_counted_every_second(database_url: str) -> None:
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

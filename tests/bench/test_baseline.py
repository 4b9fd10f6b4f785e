"""What ours is compared with still does what ours does: a figure of something else says nothing."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
from httpx import ASGITransport, AsyncClient

from durable_work.migrating import migrate
from request_manager.app import MIGRATIONS, SCHEMA
from tests.bench.baseline import Accept

pytestmark = pytest.mark.postgres


def test_the_bare_accept_stores_a_request_and_its_event(new_database: Callable[..., str]) -> None:
    url = new_database()
    asyncio.run(migrate(url, SCHEMA, MIGRATIONS))
    asyncio.run(_accept_one(url.replace("+asyncpg", "")))


async def _accept_one(url: str) -> None:
    bare = Accept(url)
    async with AsyncClient(transport=ASGITransport(bare), base_url="http://bare") as client:
        answer = await client.post("/", json={"content": "hello"})
    assert bare._pool is not None
    await bare._pool.close()
    assert answer.status_code == 202
    database = await asyncpg.connect(url)
    stored = await database.fetchrow("""
        SELECT q.request_id::text AS request_id, q.content, o.topic
        FROM request_manager.requests q, request_manager.outbox o
    """)
    await database.close()
    assert dict(stored) == {"request_id": answer.json()["request_id"], "content": "hello", "topic": "nowhere"}

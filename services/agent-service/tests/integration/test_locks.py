"""Locks of claims on real Postgres: a claim never waits for a lock, so it cannot be part of a deadlock."""

import asyncio

import pytest

from shared_clients.postgres import Database, sql
from tests.simulators.working import Session, Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOCK_RUN = sql("SELECT execution_id FROM runs WHERE execution_id = :id FOR UPDATE")


async def test_claim_skips_a_run_that_another_transaction_ends(database: Database) -> None:
    session = Session()
    dying, next_one = [await Worker(database).open() for _ in range(2)]
    await dying.inbox.consume(session.created(1))
    await dying.claim_one()
    await dying.die()

    async with asyncio.timeout(5), database.transaction() as tx:
        await tx.row(LOCK_RUN, id=session.request(1))
        assert not await next_one.claim()

    assert (await next_one.claim_one()).epoch == 2


async def test_claim_skips_a_queued_run_that_another_transaction_cancels(database: Database) -> None:
    session = Session()
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(1))

    async with asyncio.timeout(5), database.transaction() as tx:
        await tx.row(LOCK_RUN, id=session.request(1))
        assert not await worker.claim()

"""Leases and slots on real Postgres: leases end by the database's clock, and no work is claimed twice."""

import asyncio
from collections.abc import Sequence

from durable_work.leases import EXPIRED, POLL_SECONDS, Slots, WorkerLease, run_slots
from shared_clients.postgres import Database, sql


async def expired(database: Database, lease: WorkerLease) -> bool:
    async with database.autocommit() as tx:
        row = await tx.row(sql(f"SELECT {EXPIRED.format(worker='CAST(:worker AS uuid)')} AS gone"), worker=lease.worker)
    assert row is not None
    return bool(row["gone"])


async def database_is_old_enough(database: Database) -> None:
    young = sql("SELECT pg_sleep(extract(epoch FROM pg_postmaster_start_time() + interval '3.1 seconds' - now()))")
    async with database.autocommit() as tx:
        await tx.run(young)


async def test_lease_is_alive_when_renewed_and_gone_when_released(database: Database) -> None:
    await database_is_old_enough(database)
    lease = WorkerLease(database)
    assert not lease.alive
    await lease.renew()
    assert lease.alive
    assert not await expired(database, lease)
    await lease.release()
    assert not lease.alive
    assert await expired(database, lease)


async def test_lease_that_is_not_renewed_expires_by_the_databases_clock(database: Database) -> None:
    await database_is_old_enough(database)
    lease = WorkerLease(database)
    await lease.renew()
    async with database.autocommit() as tx:
        await tx.run(sql("UPDATE worker_leases SET expires_at = expires_at - interval '3 seconds'"))
    assert await expired(database, lease)
    await lease.renew()
    assert not await expired(database, lease), (
        "a worker that was only slow is alive again; epochs fence the work it lost"
    )


async def test_slot_is_reserved_only_while_the_lease_is_alive(database: Database) -> None:
    lease = WorkerLease(database)
    slots: Slots[int] = Slots(2, lambda _: asyncio.sleep(0), lease)
    assert slots.reserve() == 0
    await lease.renew()
    assert slots.reserve(5) == 2
    assert slots.reserve() == 0
    slots.release(2)
    assert slots.reserve() == 1


async def test_slots_take_all_the_work_there_is_and_never_more_than_fits(database: Database) -> None:
    lease = WorkerLease(database)
    await lease.renew()
    waiting, done = list(range(50)), list[int]()
    all_done = asyncio.Event()
    busy = most = 0

    async def perform(work: int) -> None:
        nonlocal busy, most
        busy, most = busy + 1, max(most, busy + 1)
        await asyncio.sleep(0.001)
        busy -= 1
        done.append(work)
        if len(done) == 50:
            all_done.set()

    async def claim(free: int) -> Sequence[int]:
        taken = waiting[:free]
        del waiting[:free]
        return taken

    slots = Slots(3, perform, lease)
    loop = asyncio.create_task(run_slots(slots, claim))
    async with asyncio.timeout(20):
        await all_done.wait()
    loop.cancel()
    assert sorted(done) == list(range(50))
    assert most == 3


async def test_process_without_work_claims_at_the_pace_of_its_polls(database: Database) -> None:
    lease = WorkerLease(database)
    await lease.renew()
    claims = 0

    async def claim(free: int) -> Sequence[int]:
        nonlocal claims
        claims += 1
        return ()

    slots: Slots[int] = Slots(2, lambda _: asyncio.sleep(0), lease)
    loop = asyncio.create_task(run_slots(slots, claim))
    await asyncio.sleep(4 * POLL_SECONDS)
    loop.cancel()
    assert claims <= 6


async def test_release_after_a_refused_reservation_ends_the_wait(database: Database) -> None:
    lease = WorkerLease(database)
    await lease.renew()
    slots: Slots[int] = Slots(1, lambda _: asyncio.sleep(0), lease)
    assert slots.reserve() == 1
    assert slots.reserve() == 0
    slots.release()
    async with asyncio.timeout(POLL_SECONDS / 2):
        await slots.wait()


async def test_close_cancels_running_work_and_refuses_reservations(database: Database) -> None:
    lease = WorkerLease(database)
    await lease.renew()
    begun, handed_back = asyncio.Event(), list[int]()

    async def perform(work: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            handed_back.append(work)
            raise

    slots = Slots(2, perform, lease)
    assert slots.reserve() == 1
    slots.start(7)
    await begun.wait()
    await slots.close()
    assert handed_back == [7]
    assert slots.reserve() == 0

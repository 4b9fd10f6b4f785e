"""Slots on real Postgres: never more jobs than fit, none without a lease, and a share for every tenant."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from durable_work.jobs import Slots, WorkerLease, run_slots
from durable_work.jobs.slots import POLL_SECONDS
from shared_clients.postgres import Database


@dataclass(frozen=True)
class Errand:
    number: int
    tenant: str = "acme"


async def idle(errand: Errand) -> None:
    del errand
    await asyncio.Event().wait()


async def test_slot_is_only_given_while_the_lease_holds(database: Database) -> None:
    lease = WorkerLease(database, ())
    slots: Slots[Errand] = Slots(2, idle, lease)
    assert slots.reserve() == 0
    await lease.renew()
    assert slots.reserve(5) == 2
    assert slots.reserve() == 0
    slots.release(2)
    assert slots.reserve() == 1


async def test_slots_take_every_job_and_never_more_than_fit(database: Database) -> None:
    lease = WorkerLease(database, ())
    await lease.renew()
    waiting, done = [Errand(number) for number in range(50)], list[Errand]()
    all_done = asyncio.Event()
    busy = most = 0

    async def perform(errand: Errand) -> None:
        nonlocal busy, most
        busy, most = busy + 1, max(most, busy + 1)
        await asyncio.sleep(0.001)
        busy -= 1
        done.append(errand)
        if len(done) == 50:
            all_done.set()

    async def claim(free: int, after: str, full: Collection[str]) -> Sequence[Errand]:
        taken = waiting[:free]
        del waiting[:free]
        return taken

    slots = Slots(3, perform, lease)
    loop = asyncio.create_task(run_slots(slots, claim))
    async with asyncio.timeout(20):
        await all_done.wait()
    loop.cancel()
    assert [errand.number for errand in done] == list(range(50))
    assert most == 3


async def test_process_without_jobs_claims_at_the_pace_of_its_polls(database: Database) -> None:
    lease = WorkerLease(database, ())
    await lease.renew()
    claims = 0

    async def claim(free: int, after: str, full: Collection[str]) -> Sequence[Errand]:
        nonlocal claims
        claims += 1
        return ()

    slots: Slots[Errand] = Slots(2, idle, lease)
    loop = asyncio.create_task(run_slots(slots, claim))
    await asyncio.sleep(4 * POLL_SECONDS)
    loop.cancel()
    assert claims <= 6


async def test_slot_that_was_refused_before_is_filled_as_soon_as_it_is_free(database: Database) -> None:
    lease = WorkerLease(database, ())
    await lease.renew()
    slots: Slots[Errand] = Slots(1, idle, lease)
    assert slots.reserve() == 1
    assert slots.reserve() == 0
    slots.release()
    async with asyncio.timeout(POLL_SECONDS / 2):
        await slots.wait()


async def test_close_cancels_active_jobs_and_takes_no_more(database: Database) -> None:
    lease = WorkerLease(database, ())
    await lease.renew()
    begun, handed_back = asyncio.Event(), list[Errand]()

    async def perform(errand: Errand) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            handed_back.append(errand)
            raise

    slots = Slots(2, perform, lease)
    assert slots.reserve() == 1
    slots.start(Errand(7))
    await begun.wait()
    await slots.close()
    assert handed_back == [Errand(7)]
    assert slots.reserve() == 0


async def test_one_tenant_may_take_every_slot_until_another_one_comes(database: Database) -> None:
    lease = WorkerLease(database, ())
    await lease.renew()
    slots = Slots(8, idle, lease)
    for number in range(8):
        assert slots.reserve_for("acme")
        slots.start(Errand(number))
    assert not slots.reserve_for("globex"), "no slot is free"
    assert list(slots.tenants_at_limit()) == ["acme"]
    await slots.close()


async def test_last_slot_in_eight_is_kept_for_a_second_tenant(database: Database) -> None:
    lease = WorkerLease(database, ())
    await lease.renew()
    slots = Slots(8, idle, lease)
    assert slots.reserve_for("globex")
    slots.start(Errand(0, "globex"))
    for number in range(1, 8):
        if slots.reserve_for("acme"):
            slots.start(Errand(number))
    assert list(slots.tenants_at_limit()) == ["acme"]
    assert not slots.reserve_for("acme")
    await slots.close()

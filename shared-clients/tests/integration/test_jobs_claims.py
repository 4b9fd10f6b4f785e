"""Claims over a service's own table, on real Postgres: fair to tenants, flat in what waits, fenced, and taken over."""

from uuid import UUID

import pytest

from durable_work.jobs import Claim, JobTable, WorkerLease
from durable_work.jobs.statements import PROBED_TENANTS
from shared_clients.postgres import Database, Tx, sql
from shared_models.ids import new_id
from tests.simulators.rows import row, rows, run

ERRANDS = JobTable("errands", "errand_id", progressed="j.steps > 0", claimed="steps = 0")


@pytest.fixture
async def errands(database: Database) -> Database:
    """The schema with a job table; the database counts as old enough for a takeover."""
    await run(
        database,
        """
        CREATE TABLE errands (
            tenant text, errand_id uuid, ready_at timestamptz, due_at timestamptz, worker uuid,
            epoch bigint NOT NULL DEFAULT 0, tries integer NOT NULL DEFAULT 0, steps integer NOT NULL DEFAULT 0,
            PRIMARY KEY (tenant, errand_id)
        )
        """,
    )
    for index in ERRANDS.indexes():
        await run(database, index)
    young = "SELECT pg_sleep(extract(epoch FROM pg_postmaster_start_time() + interval '3.1 seconds' - now()))"
    await run(database, young)
    return database


async def add(database: Database, tenant: str, count: int = 1, *, ready: str = "now()", due: str = "NULL") -> None:
    await run(
        database,
        f"""
        INSERT INTO errands (tenant, errand_id, ready_at, due_at)
        SELECT :tenant, gen_random_uuid(), {ready}, {due} FROM generate_series(1, :count)
        """,
        tenant=tenant,
        count=count,
    )


async def claim(
    database: Database, worker: UUID, most: int = 8, after: str = "", full: tuple[str, ...] = ()
) -> list[Claim]:
    async with database.transaction() as tx:
        return [Claim(**found) for found in await ERRANDS.claim(tx, worker, most, after=after, full=full)]


async def alive(database: Database) -> WorkerLease:
    lease = WorkerLease(database, (ERRANDS,))
    await lease.renew()
    return lease


async def test_job_is_claimed_once_under_a_rising_epoch(errands: Database) -> None:
    await add(errands, "acme")
    worker = (await alive(errands)).worker
    [first] = await claim(errands, worker)
    assert (first.epoch, first.tries) == (1, 1)
    assert await claim(errands, worker) == []
    async with errands.autocommit() as tx:
        assert await ERRANDS.held(tx, worker) == [first]
        assert await ERRANDS.hand_back(tx, first)
        assert not await ERRANDS.hand_back(tx, first), "it was handed back already"
    [second] = await claim(errands, worker)
    assert (second.epoch, second.tries) == (2, 1), "the claim that was handed back is no try"


async def test_second_tenants_first_job_is_in_the_next_claim_behind_ten_thousand(errands: Database) -> None:
    await add(errands, "acme", 10_000, ready="now() - interval '1 hour'")
    await add(errands, "globex")
    worker = (await alive(errands)).worker
    taken = await claim(errands, worker, 2)
    assert sorted(job.tenant for job in taken) == ["acme", "globex"]


async def test_one_free_slot_goes_round_the_tenants(errands: Database) -> None:
    for tenant in ("a", "b", "c"):
        await add(errands, tenant, 5)
    worker, after, turns = (await alive(errands)).worker, "", []
    for _ in range(6):
        [job] = await claim(errands, worker, 1, after)
        turns.append(after := job.tenant)
    assert turns == ["a", "b", "c", "a", "b", "c"]


async def test_tenants_share_a_claim_in_equal_parts(errands: Database) -> None:
    await add(errands, "acme", 100)
    await add(errands, "globex", 100)
    taken = await claim(errands, (await alive(errands)).worker, 8)
    assert sorted(job.tenant for job in taken) == ["acme"] * 4 + ["globex"] * 4


async def test_tenant_that_holds_its_share_is_left_out(errands: Database) -> None:
    await add(errands, "acme", 5)
    await add(errands, "globex", 1)
    taken = await claim(errands, (await alive(errands)).worker, 8, full=("acme",))
    assert [job.tenant for job in taken] == ["globex"]


async def test_every_one_of_a_thousand_tenants_has_its_turn(errands: Database) -> None:
    await run(
        errands,
        """
        INSERT INTO errands (tenant, errand_id, ready_at)
        SELECT 't' || n, gen_random_uuid(), now() FROM generate_series(1, 1000) n
        """,
    )
    worker, after, taken = (await alive(errands)).worker, "", list[Claim]()
    while jobs := await claim(errands, worker, 8, after):
        assert len(jobs) <= PROBED_TENANTS
        after = max((job.tenant for job in jobs), key=lambda tenant: (tenant <= after, tenant))
        taken += jobs
    assert len({job.tenant for job in taken}) == len(taken) == 1000


async def test_dead_workers_job_is_taken_over_under_the_next_epoch(errands: Database) -> None:
    await add(errands, "acme")
    dead, heir = await alive(errands), await alive(errands)
    [lost] = await claim(errands, dead.worker)
    assert await claim(errands, heir.worker) == []
    await dead.release()
    [taken] = await claim(errands, heir.worker)
    assert (taken.key, taken.epoch, taken.tries) == (lost.key, 2, 2)
    async with errands.autocommit() as tx:
        assert not await ERRANDS.hand_back(tx, lost), "a stale claim is fenced"
        assert not await ERRANDS.retry_later(tx, lost, 1.0), "a stale claim is fenced"


async def test_progress_begins_the_tries_anew(errands: Database) -> None:
    await add(errands, "acme")
    first, second = await alive(errands), await alive(errands)
    await claim(errands, first.worker)
    await run(errands, "UPDATE errands SET steps = 1")
    await first.release()
    [taken] = await claim(errands, second.worker)
    assert taken.tries == 1


async def test_sleeping_job_is_ready_when_its_time_has_come_and_no_sooner(errands: Database) -> None:
    await add(errands, "acme")
    worker = (await alive(errands)).worker
    [job] = await claim(errands, worker)
    async with errands.autocommit() as tx:
        assert await ERRANDS.retry_later(tx, job, 3600.0)
        assert await ERRANDS.promote(tx) == 0
        assert await claim(errands, worker) == []
        await tx.run(sql("UPDATE errands SET due_at = now()"))
        assert await ERRANDS.promote(tx) == 1
    [again] = await claim(errands, worker)
    assert again.tries == 2


async def test_lease_stays_as_long_as_a_job_names_its_worker(errands: Database) -> None:
    await add(errands, "acme")
    lease, other = await alive(errands), await alive(errands)
    [job] = await claim(errands, lease.worker)
    await run(
        errands, "UPDATE worker_leases SET expires_at = now() - interval '2 hours' WHERE worker = :w", w=lease.worker
    )
    assert await other.delete_unused() == 0
    async with errands.autocommit() as tx:
        await ERRANDS.hand_back(tx, job)
    assert await other.delete_unused() == 1


async def buffers_of_a_claim(database: Database) -> int:
    """Return the pages that one claim of eight jobs touches, without keeping the claim."""
    await run(database, "VACUUM ANALYZE errands")
    worker = new_id()
    async with database.transaction() as tx:
        await ERRANDS.claim(tx, worker, 8, after="")  # plans are warm after it
        before = await _pages(tx)
        await ERRANDS.claim(tx, worker, 8, after="")
        after = await _pages(tx)
    return after - before


async def _pages(tx: Tx) -> int:
    found = await tx.row(
        sql("""
            SELECT sum(pg_stat_get_xact_blocks_fetched(oid)) AS n FROM pg_class
            WHERE oid = 'errands'::regclass
               OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'errands'::regclass)
        """)
    )
    assert found is not None
    return int(found["n"])


@pytest.mark.parametrize(
    ("ready", "due", "tenants"),
    [("NULL", "NULL", 1), ("NULL", "now() + interval '1 day'", 1), ("NULL", "NULL", 1000)],
    ids=["gated", "sleeping", "gated of many tenants"],
)
async def test_claim_costs_the_same_with_ten_thousand_jobs_that_are_not_ready(
    errands: Database, ready: str, due: str, tenants: int
) -> None:
    empty = await buffers_of_a_claim(errands)
    for number in range(tenants):
        await add(errands, f"t{number}", 10_000 // tenants, ready=ready, due=due)
    assert await buffers_of_a_claim(errands) <= empty + 10


async def test_abandoned_jobs_are_found_by_their_worker_and_not_among_all(errands: Database) -> None:
    worker = (await alive(errands)).worker
    await add(errands, "acme", 10_000)
    await run(errands, "UPDATE errands SET worker = :w, ready_at = NULL", w=worker)
    assert await claim(errands, (await alive(errands)).worker) == []
    assert await row(errands, "SELECT count(*) AS held FROM errands WHERE worker = :w", w=worker) == {"held": 10_000}
    assert len(await rows(errands, "SELECT worker FROM worker_leases")) == 2

"""Ownership of runs: the run of a dead worker goes on under a higher epoch, and its old worker can write no more."""

from collections.abc import Awaitable, Callable

import pytest

from agent_service.domain.runs import MAX_TRIES, ClaimedRun, Step
from agent_service.queries import runs as queries
from shared_clients.errors import Stale
from shared_clients.postgres import Database
from shared_models.frames import Cursor
from tests.simulators.rows import row, rows, run
from tests.simulators.working import Session, Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEP = Step("model:1", '{"kind": "response"}', Cursor(1, 3))


@pytest.fixture
def session() -> Session:
    return Session()


async def begun(database: Database, session: Session) -> tuple[Worker, ClaimedRun]:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(1))
    return worker, await worker.claim_one()


async def taken_over(database: Database, session: Session) -> tuple[ClaimedRun, Worker, ClaimedRun]:
    """Return a run as its dead worker has it, and as its successor has it."""
    dead, old = await begun(database, session)
    await dead.die()
    successor = await Worker(database).open()
    return old, successor, await successor.claim_one()


async def test_run_of_a_living_worker_is_not_claimable(database: Database, session: Session) -> None:
    await begun(database, session)
    assert await (await Worker(database).open()).claim() == []


async def test_run_of_a_dead_worker_goes_on_under_the_next_epoch(database: Database, session: Session) -> None:
    old, successor, new = await taken_over(database, session)
    assert (old.epoch, old.tries) == (1, 1)
    assert (new.execution_id, new.epoch, new.tries) == (old.execution_id, 2, 2)
    stored = await session.run(database, 1)
    assert (stored.status, stored.worker) == ("running", successor.id)
    assert await session.published_types(database, 1) == ["flotilla.run.changed.v1"] * 2


async def test_worker_that_renews_an_expired_lease_keeps_its_unclaimed_runs(
    database: Database, session: Session
) -> None:
    worker, mine = await begun(database, session)
    await worker.die()
    await worker.lease.renew()
    assert await (await Worker(database).open()).claim() == []
    await queries.save_step(database, mine, STEP)


async def test_dead_workers_run_is_claimed_once_by_many_at_once(database: Database) -> None:
    dead = await Worker(database).open()
    sessions = [Session() for _ in range(3)]
    for session in sessions:
        await dead.inbox.consume(session.created(1))
    assert len(await dead.claim()) == 3
    await dead.die()
    successors = [await Worker(database).open() for _ in range(5)]
    claims = [await worker.claim(1) for worker in successors]
    assert sorted(len(found) for found in claims) == [0, 0, 1, 1, 1]
    assert {found[0].execution_id for found in claims if found} == {session.request(1) for session in sessions}


Write = Callable[[Database, ClaimedRun], Awaitable[object]]


async def save(database: Database, mine: ClaimedRun) -> None:
    await queries.save_step(database, mine, STEP)


async def finish(database: Database, mine: ClaimedRun) -> None:
    await Worker(database).end(mine, messages=['{"kind": "request"}'])


async def load(database: Database, mine: ClaimedRun) -> None:
    await queries.load_run(database, mine, 10)


@pytest.mark.parametrize("write", [save, finish, load])
async def test_write_under_an_old_epoch_is_refused_as_stale(database: Database, session: Session, write: Write) -> None:
    old, _, _ = await taken_over(database, session)
    before = await everything(database)
    with pytest.raises(Stale, match="no longer owned under epoch 1"):
        await write(database, old)
    assert await everything(database) == before
    assert not await queries.still_owned(database, old)


async def test_handing_back_a_lost_run_changes_nothing(database: Database, session: Session) -> None:
    old, _, _ = await taken_over(database, session)
    before = await everything(database)
    await queries.hand_back(database, old)
    assert await everything(database) == before


@pytest.mark.parametrize("write", [save, finish, load])
async def test_write_to_a_run_that_was_handed_back_is_refused(
    database: Database, session: Session, write: Write
) -> None:
    _, mine = await begun(database, session)
    await queries.hand_back(database, mine)
    before = await everything(database)
    with pytest.raises(Stale):
        await write(database, mine)
    assert await everything(database) == before


@pytest.mark.parametrize("write", [save, finish])
async def test_nothing_is_written_to_a_run_that_has_ended(database: Database, session: Session, write: Write) -> None:
    worker, mine = await begun(database, session)
    await worker.end(mine, "The answer.")
    before = await everything(database)
    with pytest.raises(Stale):
        await write(database, mine)
    assert await everything(database) == before


async def test_run_that_was_handed_back_is_claimable_at_once_with_all_its_tries(
    database: Database, session: Session
) -> None:
    worker, mine = await begun(database, session)
    for epoch in range(1, 2 * MAX_TRIES):
        assert (mine.epoch, mine.tries) == (epoch, 1)
        await queries.hand_back(database, mine)
        stored = await session.run(database, 1)
        assert (stored.status, stored.tries, stored.worker) == ("queued", 0, None)
        mine = await worker.claim_one()


async def test_run_whose_workers_die_has_lost_a_try_each_time(database: Database, session: Session) -> None:
    worker, mine = await begun(database, session)
    for tries in range(1, MAX_TRIES + 2):
        assert mine.tries == tries
        await worker.die()
        worker = await Worker(database).open()
        mine = await worker.claim_one()


async def test_step_is_saved_once_and_survives_its_worker(database: Database, session: Session) -> None:
    dead, old = await begun(database, session)
    await queries.save_step(database, old, STEP)
    await dead.die()
    successor = await Worker(database).open()
    new = await successor.claim_one()
    loaded = await queries.load_run(database, new, 10)
    assert [(step.key, step.keep) for step in loaded.steps] == [("model:1", Cursor(1, 3))]
    assert await queries.still_owned(database, new)


async def test_step_may_be_saved_again_when_the_first_answer_was_lost(database: Database, session: Session) -> None:
    _, mine = await begun(database, session)
    await queries.save_step(database, mine, STEP)
    await queries.save_step(database, mine, STEP)
    assert len(await rows(database, "SELECT key FROM steps")) == 1


async def test_window_holds_the_last_messages_before_this_turn(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    for turn in (1, 2, 3, 4):
        await worker.inbox.consume(session.created(turn))
    for turn in (1, 2, 3):
        said = [f'{{"said": "{turn}.{ordinal}"}}' for ordinal in (1, 2)]
        await worker.end(await worker.claim_one(), messages=said)
    loaded = await queries.load_run(database, await worker.claim_one(), 5)
    assert list(loaded.window) == [f'{{"said": "{turn}"}}' for turn in ("1.2", "2.1", "2.2", "3.1", "3.2")]
    assert not loaded.cancelled
    assert not loaded.expired
    assert not loaded.session_deleted


async def everything(database: Database) -> dict[str, object]:
    """Return all that a run leaves behind."""
    tables = ("runs", "steps", "messages", "outbox", "sessions")
    return {table: await rows(database, f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables}


async def test_unfinished_claim_leaves_a_run_to_the_next(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(1))
    with pytest.raises(RuntimeError, match="the process died"):
        await claim_and_die(database, worker)
    assert (await session.run(database, 1)).status == "queued"
    assert (await worker.claim_one()).epoch == 1
    assert await row(database, "SELECT count(*) AS told FROM outbox") == {"told": 1}
    await run(database, "DELETE FROM outbox")


async def claim_and_die(database: Database, worker: Worker) -> None:
    async with database.transaction() as tx:
        assert len(await queries.claim_runs(tx, worker.id, 8)) == 1
        raise RuntimeError("the process died")

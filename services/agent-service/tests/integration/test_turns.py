"""Turns on real Postgres: in order whatever the transport does, one at a time, and no session waits for another."""

import asyncio
import random

import pytest

from agent_service.domain.runs import ClaimedRun
from agent_service.events import on_request_created
from shared_clients.postgres import Database, UniqueViolation, sql
from shared_models.envelope import Envelope
from shared_models.requests import RequestCreated
from tests.simulators.rows import row, run
from tests.simulators.working import Session, Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOCK = sql("SELECT session_id FROM sessions WHERE session_id = :id FOR UPDATE")
WAITING = (
    "SELECT count(*) AS waiting FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture
def session() -> Session:
    return Session()


async def somebody_waits_for_a_lock(database: Database) -> None:
    async with asyncio.timeout(10):
        while (await row(database, WAITING))["waiting"] == 0:  # noqa: ASYNC110 - Postgres does not tell
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", range(6))
async def test_turns_run_in_order_however_their_events_come(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    sessions = [Session() for _ in range(3)]
    events = [session.created(turn) for session in sessions for turn in range(1, 6)] * 2
    chance.shuffle(events)
    workers = [await Worker(database, slots_=2).open() for _ in range(2)]
    order: dict[object, list[int]] = {session.session_id: [] for session in sessions}
    working: list[tuple[Worker, ClaimedRun]] = []

    def note(worker: Worker, runs: list[ClaimedRun]) -> None:
        for claimed in runs:
            assert claimed.session_id not in {other.session_id for _, other in working}, "one at a time"
            order[claimed.session_id].append(claimed.turn)
            working.append((worker, claimed))

    while events or any(len(turns) < 5 for turns in order.values()) or working:
        worker = chance.choice(workers)
        if events and chance.random() < 0.6:
            await worker.inbox.consume(events.pop())
            await asyncio.sleep(0)
            note(worker, worker.begun)
            worker.begun.clear()
        elif working and chance.random() < 0.6:
            owner, claimed = working.pop(chance.randrange(len(working)))
            await owner.end(claimed)
        else:
            note(worker, list(await worker.claim(chance.randint(1, 3))))
    assert list(order.values()) == [[1, 2, 3, 4, 5]] * 3


async def test_event_begins_its_run_in_its_own_transaction_where_a_slot_is_free(
    database: Database, session: Session
) -> None:
    worker = await Worker(database, slots_=1).open()
    await worker.inbox.consume(session.created(1, "What time is it?"))
    await asyncio.sleep(0)
    [begun] = worker.begun
    assert (begun.content, begun.turn, begun.epoch, begun.tries) == ("What time is it?", 1, 1, 1)
    stored = await session.run(database, 1)
    assert (stored.status, stored.worker) == ("running", worker.id)
    assert await session.published_types(database, 1) == ["flotilla.run.changed.v1"]
    assert await worker.claim() == []


async def test_event_without_a_free_slot_or_a_living_lease_queues_its_run(database: Database) -> None:
    for worker in (await Worker(database, slots_=0).open(), Worker(database, slots_=1)):
        session = Session()
        await worker.inbox.consume(session.created(1))
        assert worker.begun == []
        stored = await session.run(database, 1)
        assert (stored.status, stored.epoch, stored.tries, stored.worker) == ("queued", 0, 0, None)
        assert await session.published_types(database, 1) == []


async def test_slot_comes_back_from_every_event_that_does_not_begin_a_run(database: Database, session: Session) -> None:
    worker = await Worker(database, slots_=1).open()
    for _ in range(3):
        await worker.inbox.consume(session.created(2))
    stranger = session.created(3)
    await run(database, "ALTER TABLE runs RENAME TO away")
    await worker.inbox.consume(stranger)  # a bug, as far as it can know: parked
    await run(database, "ALTER TABLE away RENAME TO runs")
    assert worker.slots.reserve() == 1


async def test_later_turn_waits_for_an_earlier_turn_that_is_missing(database: Database, session: Session) -> None:
    worker = await Worker(database, slots_=2).open()
    await worker.inbox.consume(session.created(2))
    assert await worker.claim() == []
    await worker.inbox.consume(session.created(1))
    await asyncio.sleep(0)
    assert [begun.turn for begun in worker.begun] == [1]
    assert await worker.claim() == []
    await worker.end(worker.begun[0])
    assert [claimed.turn for claimed in await worker.claim()] == [2]


async def test_turns_after_a_missing_turn_wait_for_it(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    for turn in (1, 3, 4):
        await worker.inbox.consume(session.created(turn))
    await worker.end(await worker.claim_one())
    assert await worker.claim() == [], "2 has not come"
    await worker.inbox.consume(session.created(2))
    for turn in (2, 3, 4):
        claimed = await worker.claim_one()
        assert claimed.turn == turn
        await worker.end(claimed)
    statement = "SELECT next_turn, current_run FROM sessions WHERE session_id = :id"
    assert await row(database, statement, id=session.session_id) == {"next_turn": 5, "current_run": None}


async def test_cancelled_turn_in_the_middle_lets_no_later_turn_overtake(database: Database, session: Session) -> None:
    worker = await Worker(database, slots_=4).open()
    await worker.inbox.consume(session.created(2))
    await worker.inbox.consume(session.cancelled(2))
    assert await session.statuses(database) == {2: "cancelled"}
    await worker.inbox.consume(session.created(3))
    await worker.inbox.consume(session.created(4))
    assert await worker.claim() == []
    assert worker.begun == [], "1 has not come"
    await worker.inbox.consume(session.created(1))
    await asyncio.sleep(0)
    assert [begun.turn for begun in worker.begun] == [1]
    await worker.end(worker.begun[0])
    assert [claimed.turn for claimed in await worker.claim()] == [3]


async def test_turn_does_not_overtake_one_that_is_being_stored_at_the_same_moment(
    database: Database, session: Session
) -> None:
    late, early = await Worker(database).open(), await Worker(database, slots_=1).open()
    await late.inbox.consume(session.created(2))
    await late.inbox.consume(session.cancelled(2))
    first = session.created(1)
    async with database.transaction() as tx:  # the first turn's event is about to be committed, and queues its run
        event = Envelope.parse(first.attributes, first.data)
        request = RequestCreated.model_validate_json(first.data)
        await on_request_created(tx, event, request, outbox=late.outbox, slots=late.slots)
        third = asyncio.create_task(early.inbox.consume(session.created(3)))
        await somebody_waits_for_a_lock(database)
    await third
    await asyncio.sleep(0)
    assert early.begun == []
    assert await session.statuses(database) == {1: "queued", 2: "cancelled", 3: "queued"}
    assert [claimed.turn for claimed in await late.claim()] == [1]


async def test_sessions_do_not_wait_for_each_other(database: Database) -> None:
    worker = await Worker(database).open()
    sessions = [Session() for _ in range(5)]
    for session in sessions:
        for turn in (1, 2):
            await worker.inbox.consume(session.created(turn))
    claimed = await worker.claim()
    assert {(one.session_id, one.turn) for one in claimed} == {(session.session_id, 1) for session in sessions}
    await worker.end(claimed[3])
    assert [(one.session_id, one.turn) for one in await worker.claim()] == [(claimed[3].session_id, 2)]


async def test_claim_of_a_ready_run_does_not_wait_for_a_message_that_comes_meanwhile(
    database: Database, session: Session
) -> None:
    one, two = await Worker(database).open(), await Worker(database).open()
    await one.inbox.consume(session.created(1))
    async with database.transaction() as tx:
        await tx.rows(LOCK, id=session.session_id)
        assert (await two.claim_one()).turn == 1
    await one.inbox.consume(session.created(2))
    assert await two.claim() == []


async def test_concurrent_claims_never_give_one_session_two_runs(database: Database) -> None:
    workers = [await Worker(database).open() for _ in range(6)]
    sessions = [Session() for _ in range(4)]
    for session in sessions:
        for turn in (1, 2, 3):
            await workers[0].inbox.consume(session.created(turn))
    for turn in (1, 2, 3):
        claims = await asyncio.gather(*(worker.claim(2) for worker in workers))
        by = [(worker, claimed) for worker, found in zip(workers, claims, strict=True) for claimed in found]
        left = [(workers[0], claimed) for claimed in await workers[0].claim()]
        assert sorted(str(claimed.session_id) for _, claimed in [*by, *left]) == sorted(
            str(session.session_id) for session in sessions
        )
        assert {claimed.turn for _, claimed in by} <= {turn}
        await asyncio.gather(*(worker.end(claimed) for worker, claimed in [*by, *left]))
    assert await workers[0].claim() == []


async def test_table_itself_refuses_a_second_running_run_in_a_session(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    for turn in (1, 2):
        await worker.inbox.consume(session.created(turn))
    await worker.claim()
    with pytest.raises(UniqueViolation, match="runs_active"):
        await run(database, "UPDATE runs SET status = 'running' WHERE turn = 2")


async def test_title_is_the_first_line_and_owner_is_the_requester(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(1, "  Plan the party\nfor Ada"))
    await worker.inbox.consume(session.created(2, "And the cake"))
    held = await row(database, "SELECT owner, title, agent FROM sessions")
    assert held == {"owner": "idp|ada", "title": "Plan the party", "agent": None}

"""Requests that request-manager publishes again as new events, and requests that can never be delivered."""

import asyncio

import pytest

from agent_service.domain.runs import AgentRevision, answered
from agent_service.events import on_request_created
from agent_service.usecases.end_run import end_run
from durable_work.outbox import message_of
from shared_clients.bus.port import Message
from shared_clients.errors import Transient
from shared_clients.postgres import Database, Tx
from shared_models.catalog import REQUEST_CANCELLED
from shared_models.envelope import Envelope, EventContext, new_event
from shared_models.requests import RequestCancelled, RequestCreated, ResponseReady, Truncation, Usage
from tests.simulators.rows import row, rows, run
from tests.simulators.working import ADA, Session, Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

READY = "flotilla.response.ready.v1"
FAILED = "flotilla.response.failed.v1"
CHANGED = "flotilla.run.changed.v1"


@pytest.fixture
def session() -> Session:
    return Session()


def undeliverable(session: Session, turn: int) -> Message:
    data = RequestCancelled(principal=ADA, undeliverable="the broker takes no event of 300000 bytes")
    context = EventContext(session.request(turn), session.session_id, ADA.tenant, turn)
    return message_of(new_event("request-manager", REQUEST_CANCELLED, data, context))


async def stored(database: Database, session: Session) -> tuple[int, int]:
    """Return how many runs the session has, and its next turn."""
    statement = """
        SELECT (SELECT count(*) FROM runs r WHERE r.session_id = s.session_id) AS runs, next_turn
        FROM sessions s WHERE session_id = :id
    """
    found = await row(database, statement, id=session.session_id)
    return found["runs"], found["next_turn"]


async def ends(database: Database, session: Session, turn: int) -> list[ResponseReady]:
    statement = "SELECT data FROM outbox WHERE attributes->>'correlationid' = :id AND attributes->>'type' = :type"
    found = await rows(database, statement, id=str(session.request(turn)), type=READY)
    return [ResponseReady.model_validate_json(one["data"]) for one in found]


async def test_repeated_request_publishes_the_whole_end_again_and_runs_nothing(
    database: Database, session: Session
) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(1))
    await worker.end(await worker.claim_one(), "Noon.")
    await worker.inbox.consume(session.created(1))
    first, again = await ends(database, session, 1)
    assert first == again
    assert again.usage.model_calls == 1
    assert await worker.claim() == []
    assert await stored(database, session) == (1, 2), "it is counted once"


async def test_repeated_request_publishes_the_mark_of_a_cut_answer_again(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(1))
    end = answered("One, two,", AgentRevision("assistant", "r1"), Usage(), truncated=Truncation.LENGTH)
    async with database.transaction() as tx:
        await end_run(tx, worker.outbox, await worker.claim_one(), end)
    await worker.inbox.consume(session.created(1))
    published = await ends(database, session, 1)
    assert [event.response.truncated for event in published] == [Truncation.LENGTH] * 2


async def test_repeated_request_publishes_that_its_run_is_running(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(1))
    await worker.claim_one()
    await worker.inbox.consume(session.created(1))
    assert await session.published_types(database, 1) == [CHANGED, CHANGED]


async def test_repeated_request_of_a_queued_run_changes_nothing_and_takes_no_slot(
    database: Database, session: Session
) -> None:
    worker = await Worker(database, slots_=1).open()
    await worker.inbox.consume(session.created(2))
    for _ in range(3):
        await worker.inbox.consume(session.created(2))
    assert await session.published_types(database, 2) == []
    assert await stored(database, session) == (1, 1), "the hole before it stays a hole"
    assert worker.slots.reserve() == 1


async def test_request_that_comes_twice_at_one_moment_is_counted_once(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(1))
    for turn in range(2, 12):
        await asyncio.gather(*(worker.inbox.consume(session.created(turn)) for _ in range(4)))
    parked = "SELECT count(*) AS parked FROM inbox WHERE state = 'parked'"
    async with asyncio.timeout(20):
        while (await row(database, parked))["parked"]:
            await run(database, "UPDATE inbox SET next_attempt_at = now() WHERE state = 'parked'")
            await worker.inbox.retry()
    assert await stored(database, session) == (11, 1)


async def test_second_of_two_concurrent_copies_rolls_back(database: Database, session: Session) -> None:
    """The race is made: the run is inserted by another transaction while this one waits for the session's row."""
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(1))
    async with database.transaction() as ahead:
        await react(worker, ahead, session.created(2))
        behind = asyncio.create_task(_alone(worker, database, session.created(2)))
        await _waits(database)
    with pytest.raises(Transient, match="same moment"):
        await behind
    assert await stored(database, session) == (2, 1)


async def _alone(worker: Worker, database: Database, message: Message) -> None:
    async with database.transaction() as tx:
        await react(worker, tx, message)


async def react(worker: Worker, tx: Tx, message: Message) -> None:
    request = RequestCreated.model_validate_json(message.data)
    event = Envelope.parse(message.attributes, message.data)
    await on_request_created(tx, event, request, outbox=worker.outbox, slots=worker.slots)


async def _waits(database: Database) -> None:
    waiting = (
        "SELECT count(*) AS waiting FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(10):
        while (await row(database, waiting))["waiting"] == 0:  # noqa: ASYNC110 - Postgres does not tell
            await asyncio.sleep(0.01)


async def test_undeliverable_request_fails_in_its_turn_and_its_session_goes_on(
    database: Database, session: Session
) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(1))
    await worker.inbox.consume(session.created(3))
    await worker.end(await worker.claim_one())
    assert await worker.claim() == [], "2 has not come"
    await worker.inbox.consume(undeliverable(session, 2))
    assert await session.published_types(database, 2) == [FAILED]
    failed = await session.run(database, 2)
    assert failed.failure is not None
    assert "300000 bytes" in failed.failure["message"]
    assert [claimed.turn for claimed in await worker.claim()] == [3]


async def test_undeliverable_request_whose_run_exists_republishes_its_state(
    database: Database, session: Session
) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(1))
    await worker.end(await worker.claim_one(), "Noon.")
    await worker.inbox.consume(undeliverable(session, 1))
    assert await session.published_types(database, 1) == [CHANGED, READY, READY]
    assert (await session.run(database, 1)).status == "completed"

"""Ends of runs: row, messages, event and terminal frame agree after any crash, and every request ends."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
import pytest_asyncio

from agent_service.domain.runs import ClaimedRun, failed
from agent_service.queries import ends
from agent_service.queries import runs as queries
from agent_service.usecases.cancel_run import cancel_run
from agent_service.usecases.end_run import (
    append_due_terminal_frames,
    end_overdue_runs,
    end_run,
    fail_unpublishable_response,
)
from durable_work.inbox import MAX_ATTEMPTS
from durable_work.outbox import Outbox
from run_frames.log import log_key, read_log
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent
from shared_clients.postgres import Database
from shared_clients.redis import Redis, open_redis
from shared_models.envelope import Envelope
from shared_models.requests import FailureReason, RequestView, ResponseFailed, ResponseReady
from tests.simulators.rows import row, rows, run
from tests.simulators.viewer import seen
from tests.simulators.working import ADA, Session, Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

READY, FAILED, CHANGED = "flotilla.response.ready.v1", "flotilla.response.failed.v1", "flotilla.run.changed.v1"
SAID = ['{"n": 1}', '{"n": 2}']


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis() -> AsyncGenerator[Redis]:
    async with open_redis("memory://") as opened:
        yield opened


@pytest.fixture
def session() -> Session:
    return Session()


async def begun(database: Database, session: Session, turn: int = 1) -> tuple[Worker, ClaimedRun]:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.created(turn))
    return worker, await worker.claim_one()


async def end_of(database: Database, request: UUID) -> ResponseFailed | ResponseReady:
    statement = """SELECT attributes->>'type' AS type, data FROM outbox
                   WHERE attributes->>'correlationid' = :id AND attributes->>'type' LIKE '%response%'"""
    event = await row(database, statement, id=str(request))
    model = ResponseReady if event["type"] == READY else ResponseFailed
    return model.model_validate_json(event["data"])


async def in_the_past(database: Database, column: str, by: str = "2 seconds") -> None:
    await run(database, f"UPDATE runs SET {column} = now() - interval '{by}'")


async def test_row_messages_event_and_frame_are_one_commit(database: Database, session: Session) -> None:
    worker, mine = await begun(database, session)
    await worker.end(mine, "The answer.", SAID)
    written = await rows(
        database,
        """SELECT 'run' AS what, xmin::text AS by FROM runs
           UNION ALL SELECT 'session', xmin::text FROM sessions
           UNION ALL SELECT 'message', xmin::text FROM messages
           UNION ALL SELECT 'event', xmin::text FROM outbox WHERE attributes->>'type' = :ready""",
        ready=READY,
    )
    assert sorted(one["what"] for one in written) == ["event", "message", "message", "run", "session"]
    assert len({one["by"] for one in written}) == 1
    stored = await session.run(database, 1)
    assert (stored.status, stored.answer, stored.worker) == ("completed", "The answer.", None)
    assert stored.terminal_frame is not None
    assert stored.terminal_frame["type"] == "RUN_FINISHED"
    told = await end_of(database, mine.execution_id)
    assert isinstance(told, ResponseReady)
    assert told.response.content == "The answer."


async def test_messages_are_kept_in_the_order_in_which_they_were_said(database: Database, session: Session) -> None:
    worker, mine = await begun(database, session)
    await worker.end(mine, messages=SAID)
    kept = await rows(database, "SELECT turn, ordinal, message FROM messages ORDER BY ordinal")
    assert kept == [{"turn": 1, "ordinal": n, "message": {"n": n}} for n in (1, 2)]


async def die_before_the_commit(database: Database, worker: Worker, mine: ClaimedRun) -> None:
    async with database.transaction() as tx:
        await worker.end_in(tx, mine, "Lost.", SAID)
        raise RuntimeError("the process died")


async def test_end_that_was_not_committed_leaves_nothing_and_may_be_written_again(
    database: Database, session: Session
) -> None:
    worker, mine = await begun(database, session)
    with pytest.raises(RuntimeError, match="the process died"):
        await die_before_the_commit(database, worker, mine)
    stored = await session.run(database, 1)
    assert (stored.status, stored.answer, stored.terminal_frame) == ("running", None, None)
    assert await rows(database, "SELECT turn FROM messages") == []
    assert await session.published_types(database, 1) == [CHANGED]
    await worker.end(mine, "Kept.", SAID)
    assert await session.published_types(database, 1) == [CHANGED, READY]


async def test_terminal_frame_that_a_crash_left_out_is_swept_once(
    database: Database, session: Session, redis: Redis
) -> None:
    worker, mine = await begun(database, session)
    await worker.end(mine, "The answer.")
    assert await append_due_terminal_frames(database, redis) == 0, "its own worker has a second for it"
    await in_the_past(database, "finished_at")
    assert await append_due_terminal_frames(database, redis) == 1
    assert await append_due_terminal_frames(database, redis) == 0
    viewer = seen(await read_log(redis, log_key("acme", mine.execution_id)))
    assert viewer.text == "The answer."
    assert viewer.outcome is not None
    assert viewer.outcome[0] == "RUN_FINISHED"
    view = RequestView.model_validate(viewer.outcome[1]["result"])
    assert (view.request_id, view.turn) == (mine.execution_id, 1)
    assert (await session.run(database, 1)).terminal_frame is None


async def test_terminal_frame_that_got_through_is_not_appended_twice(
    database: Database, session: Session, redis: Redis
) -> None:
    worker, mine = await begun(database, session)
    await worker.end(mine)
    await in_the_past(database, "finished_at")
    await append_due_terminal_frames(database, redis)
    frame = '{"type": "RUN_FINISHED", "fields": {}}'
    await run(database, "UPDATE runs SET terminal_frame = CAST(:frame AS jsonb)", frame=frame)  # it died before told()
    assert await append_due_terminal_frames(database, redis) == 1
    assert [frame.terminal for frame in await read_log(redis, log_key("acme", mine.execution_id))].count(True) == 1


async def test_request_that_is_cancelled_in_the_queue_ends_at_once(database: Database, session: Session) -> None:
    worker, _ = await begun(database, session)
    await worker.inbox.consume(session.created(2))
    await worker.inbox.consume(session.cancelled(2))
    assert await session.statuses(database) == {1: "running", 2: "cancelled"}
    told = await end_of(database, session.request(2))
    assert isinstance(told, ResponseFailed)
    assert told.error.reason is FailureReason.CANCELLED_BY_CALLER
    await worker.inbox.consume(session.cancelled(2))
    assert await session.published_types(database, 2) == [FAILED]


async def test_cancel_that_comes_before_its_request_holds(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.cancelled(1))
    await worker.inbox.consume(session.created(1))
    loaded = await queries.load_run(database, await worker.claim_one(), 10)
    assert loaded.cancelled


async def test_cancel_that_comes_in_the_same_moment_as_its_request_holds(database: Database, session: Session) -> None:
    worker = await Worker(database, slots_=1).open()
    created, cancelled = session.created(1), session.cancelled(1)
    async with database.transaction() as tx:  # sees no run, and is not committed when the run is stored
        await cancel_run(tx, worker.outbox, Envelope.parse(cancelled.attributes, b"").context, ADA.person)
        await worker.inbox.consume(created)
    await asyncio.sleep(0)
    [mine] = worker.begun
    assert (await queries.load_run(database, mine, 10)).cancelled
    [held] = await queries.list_owned_runs(database, worker.id)
    assert held.stop_reason is FailureReason.CANCELLED_BY_CALLER


async def test_cancel_of_a_running_run_is_seen_by_its_worker_alone(database: Database, session: Session) -> None:
    worker, mine = await begun(database, session)
    other = Session()
    await worker.inbox.consume(other.created(1))
    await worker.claim_one()
    await worker.inbox.consume(session.cancelled(1))
    assert (await session.run(database, 1)).status == "running"
    held = {one.execution_id: one.stop_reason for one in await queries.list_owned_runs(database, worker.id)}
    assert held == {mine.execution_id: FailureReason.CANCELLED_BY_CALLER, other.request(1): None}
    assert await queries.list_owned_runs(database, (await Worker(database).open()).id) == []


async def test_cancel_of_what_has_ended_changes_nothing(database: Database, session: Session) -> None:
    worker, mine = await begun(database, session)
    await worker.end(mine)
    await worker.inbox.consume(session.cancelled(1))
    assert await session.statuses(database) == {1: "completed"}
    assert await session.published_types(database, 1) == [CHANGED, READY]


async def test_cancel_of_another_tenants_request_does_not_count(database: Database, session: Session) -> None:
    worker, _ = await begun(database, session)
    stranger = Session(session.session_id, ADA.model_copy(update={"tenant": "other"}), session.requests)
    await worker.inbox.consume(stranger.cancelled(1))
    assert [one.stop_reason for one in await queries.list_owned_runs(database, worker.id)] == [None]


async def test_request_whose_deadline_passes_in_the_queue_ends_as_expired(database: Database, session: Session) -> None:
    worker, _ = await begun(database, session)
    await worker.inbox.consume(session.created(2, expires=timedelta(seconds=-1)))
    await worker.inbox.consume(session.created(3))
    assert await end_overdue_runs(database, worker.outbox) == 1
    assert await end_overdue_runs(database, worker.outbox) == 0
    assert await session.statuses(database) == {1: "running", 2: "expired", 3: "queued"}
    told = await end_of(database, session.request(2))
    assert isinstance(told, ResponseFailed)
    assert told.error.reason is FailureReason.DEADLINE


async def test_overdue_requests_are_ended_once_by_many_at_once(database: Database) -> None:
    worker = await Worker(database).open()
    sessions = [Session() for _ in range(8)]
    for session in sessions:
        await worker.inbox.consume(session.created(1, expires=timedelta(seconds=-1)))
    ended = await asyncio.gather(*(end_overdue_runs(database, worker.outbox) for _ in range(4)))
    assert sum(ended) == 8
    assert [await session.published_types(database, 1) for session in sessions] == [[FAILED]] * 8


async def test_running_run_past_its_deadline_has_a_stop_reason(database: Database, session: Session) -> None:
    worker, _ = await begun(database, session)
    assert await end_overdue_runs(database, worker.outbox) == 0
    await in_the_past(database, "expires_at")
    assert await end_overdue_runs(database, worker.outbox) == 0, "its worker ends it"
    assert [one.stop_reason for one in await queries.list_owned_runs(database, worker.id)] == [FailureReason.DEADLINE]


def poisoned(message: Message, data: bytes = b'{"content": 7}') -> Message:
    return replace(message, data=data)


async def test_request_that_can_never_be_read_fails_and_its_session_goes_on(
    database: Database, session: Session
) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(poisoned(session.created(1)))
    await worker.inbox.consume(session.created(2))
    assert await session.statuses(database) == {1: "failed", 2: "queued"}
    told = await end_of(database, session.request(1))
    assert isinstance(told, ResponseFailed)
    assert told.error.reason is FailureReason.INTERNAL
    assert (await worker.claim_one()).turn == 2
    held = await row(database, "SELECT owner, next_turn, current_run FROM sessions")
    assert held == {"owner": "idp|ada", "next_turn": 2, "current_run": session.request(2)}


async def test_dead_event_in_the_middle_lets_no_later_turn_overtake(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(poisoned(session.created(2)))
    await worker.inbox.consume(session.created(3))
    assert await worker.claim() == []
    await worker.inbox.consume(session.created(1))
    for turn in (1, 3):
        claimed = await worker.claim_one()
        assert claimed.turn == turn
        await worker.end(claimed)


async def test_request_without_a_turn_fails_and_takes_no_place_in_its_session(
    database: Database, session: Session
) -> None:
    worker = await Worker(database).open()
    strays = [session.created(turn) for turn in (98, 99)]
    for stray in strays:
        attributes = {name: value for name, value in stray.attributes.items() if name != "turn"}
        await worker.inbox.consume(replace(stray, attributes=attributes))
    await worker.inbox.consume(session.created(1))
    assert [await session.published_types(database, turn) for turn in (98, 99)] == [[FAILED], [FAILED]]
    await worker.end(await worker.claim_one())
    await worker.inbox.consume(session.created(2))
    assert (await worker.claim_one()).turn == 2


async def test_event_that_cannot_even_fail_its_request_is_dead_in_the_end(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    strange = session.created(1)
    attributes = {**strange.attributes, "partitionkey": "no-session"}
    await worker.inbox.consume(replace(strange, attributes=attributes, data=b"{"))
    assert await rows(database, "SELECT state FROM inbox") == [{"state": "parked"}]
    for _ in range(MAX_ATTEMPTS):
        await run(database, "UPDATE inbox SET next_attempt_at = now()")
        with pytest.raises(ValueError, match="UUID"):
            await worker.inbox.retry()
    await run(database, "UPDATE inbox SET next_attempt_at = now()")
    await worker.inbox.retry()
    assert await rows(database, "SELECT state FROM inbox") == [{"state": "dead"}]


async def test_answer_that_cannot_be_published_becomes_a_failure(database: Database, session: Session) -> None:
    worker, mine = await begun(database, session)
    await run(database, "DELETE FROM outbox")
    outbox = Outbox(
        database, worker.bus, on_dead=lambda tx, event, error: fail_unpublishable_response(tx, outbox, event, error)
    )
    worker.outbox = outbox
    worker.bus.faults = [Permanent]
    async with outbox.running():
        await worker.end(mine, "The answer.")
    [failure] = worker.bus.safe
    assert ResponseFailed.model_validate_json(failure.data).error.reason is FailureReason.INTERNAL
    assert failure.attributes["correlationid"] == str(mine.execution_id)
    assert await rows(database, "SELECT state, attributes->>'type' AS type FROM outbox") == [
        {"state": "dead", "type": READY}
    ]
    assert (await session.run(database, 1)).answer == "The answer."


async def test_failure_is_stored_with_its_reason_and_message(database: Database, session: Session) -> None:
    worker, mine = await begun(database, session)
    end = failed(FailureReason.MODEL_CUT)
    async with database.transaction() as tx:
        await end_run(tx, worker.outbox, mine, end)
    stored = await session.run(database, 1)
    assert (stored.status, stored.answer) == ("failed", None)
    assert stored.failure == {"reason": "model_cut", "message": "The model's answer broke off."}
    assert stored.terminal_frame is not None
    assert stored.terminal_frame["type"] == "RUN_ERROR"


async def test_cancellations_are_deleted_after_eight_days(database: Database, session: Session) -> None:
    worker = await Worker(database).open()
    await worker.inbox.consume(session.cancelled(1))
    assert await ends.delete_expired_cancellations(database) == 0
    await run(database, "UPDATE cancellations SET asked_at = now() - interval '9 days'")
    assert await ends.delete_expired_cancellations(database) == 1

"""A claimed run, performed: however it goes, it is left in a state that somebody acts on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest
import pytest_asyncio
from pydantic_ai.messages import ModelResponse, TextPart

from agent_service.adapters.replies import MAX_ANSWER
from agent_service.domain.runs import MAX_TRIES
from agent_service.queries import runs as queries
from agent_service.usecases.end_run import tell_ends
from agent_service.usecases.perform_run import Means
from agent_service.workers import Performing
from shared_clients.errors import Transient
from shared_clients.postgres import Database
from shared_clients.redis import Redis, open_redis
from shared_models.requests import FailureReason, RequestView
from tests.simulators.performing import AGENT, Bench, Desk, FailingDatabase
from tests.simulators.rows import row, rows, run
from tests.simulators.working import Session, Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = "spec: {default: {text: Hello there.}}"
STALLS = "spec: {default: {text: one two three, fault: {kind: stall, after: 2}}}"
CALCULATES = """
spec:
  rules: [{when: {tool: calculator}, reply: {text: It is 42.}}]
  default: {calls: [{tool: calculator, arguments: {expression: "6*7"}}]}
"""
REMEMBERS = """
spec:
  rules: [{when: {user: my name, earlier: 'I am (?P<name>\\w+)'}, reply: {text: "You are ${name}."}}]
  default: {text: Nice to meet you.}
"""
READY, FAILED, CHANGED = "flotilla.response.ready.v1", "flotilla.response.failed.v1", "flotilla.run.changed.v1"
CANCEL = "INSERT INTO cancellations (tenant, execution_id) SELECT tenant, execution_id FROM runs"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis() -> AsyncGenerator[Redis]:
    async with open_redis("memory://") as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def desk(database: Database, redis: Redis) -> Desk:
    return Desk(database, redis, await Worker(database).open())


async def test_answer_is_streamed_stored_and_told(desk: Desk) -> None:
    bench = Bench(HELLO)
    stored = await desk.answer(bench)
    assert (stored.status, stored.answer, stored.terminal_frame) == ("completed", "Hello there.", None)
    viewer = await desk.viewer()
    assert viewer.text == "Hello there."
    assert viewer.outcome is not None
    view = RequestView.model_validate(viewer.outcome[1]["result"])
    assert (view.agent, view.revision) == ("assistant", bench.agent.revision)
    assert view.usage is not None
    assert view.usage.model_calls == 1
    assert await desk.told() == [CHANGED, READY]
    kept = await rows(desk.database, "SELECT message->>'kind' AS kind FROM messages ORDER BY ordinal")
    assert [one["kind"] for one in kept] == ["request", "response"]


async def test_next_turn_knows_what_was_said(desk: Desk) -> None:
    bench = Bench(REMEMBERS)
    await desk.answer(bench, "I am Ada")
    assert (await desk.answer(bench, "What is my name?", turn=2)).answer == "You are Ada."


@pytest.mark.parametrize(
    ("reason", "status"), [(FailureReason.CANCELLED_BY_CALLER, "cancelled"), (FailureReason.DEADLINE, "expired")]
)
async def test_run_that_is_stopped_in_mid_answer_ends_with_the_reason(
    desk: Desk, reason: FailureReason, status: str
) -> None:
    bench = Bench(STALLS)
    performing = desk.perform(bench, await desk.claimed())
    await bench.models.begun.wait()
    performing.stop.set_result(reason)
    await performing.task
    stored = await desk.row()
    assert (stored.status, stored.answer) == (status, None)
    assert stored.failure is not None
    assert stored.failure["reason"] == reason.value
    assert await desk.told() == [CHANGED, FAILED]
    assert await rows(desk.database, "SELECT turn FROM messages") == []
    outcome = (await desk.viewer()).outcome
    assert outcome is not None
    assert (outcome[0], outcome[1]["code"]) == ("RUN_ERROR", reason.value)


async def test_run_that_was_stopped_before_it_began_still_ends(desk: Desk) -> None:
    performing = desk.perform(Bench(STALLS), await desk.claimed())
    performing.stop.set_result(FailureReason.CANCELLED_BY_CALLER)
    await performing.task
    assert (await desk.row()).status == "cancelled"


async def test_active_time_that_is_up_ends_a_run_as_expired(desk: Desk) -> None:
    stored = await desk.answer(Bench(STALLS, agent=AGENT.replace("seconds: 30", "seconds: 1")))
    assert stored.status == "expired"
    assert stored.failure == {"reason": "deadline", "message": "The request ran out of time."}


@pytest.mark.parametrize(
    ("before", "status", "reason"),
    [
        (CANCEL, "cancelled", "cancelled_by_caller"),
        ("UPDATE runs SET expires_at = now() - interval '1 second'", "expired", "deadline"),
        ("UPDATE sessions SET deleted_at = now()", "refused", "session_deleted"),
    ],
)
async def test_run_that_nobody_wants_any_more_ends_before_a_model_is_asked(
    desk: Desk, before: str, status: str, reason: str
) -> None:
    bench = Bench(HELLO)
    mine = await desk.claimed()
    await run(desk.database, before)
    await desk.perform(bench, mine).task
    stored = await desk.row()
    assert stored.status == status
    assert stored.failure is not None
    assert stored.failure["reason"] == reason
    assert bench.models.replies == 0


async def test_run_that_kills_its_workers_is_given_up(desk: Desk) -> None:
    bench = Bench(HELLO)
    await desk.claimed()
    await run(desk.database, "UPDATE runs SET tries = :tries", tries=MAX_TRIES)
    await desk.perform(bench, await desk.taken_over()).task
    stored = await desk.row()
    assert (stored.status, stored.tries) == ("failed", MAX_TRIES + 1)
    assert stored.failure == {"reason": "internal", "message": f"The request was given up after {MAX_TRIES} tries."}
    assert bench.models.replies == 0


async def test_agent_that_is_not_there_is_a_failure_with_its_reason(desk: Desk) -> None:
    await desk.claimed()
    await run(desk.database, "UPDATE runs SET agent = 'nobody'")
    await desk.perform(Bench(HELLO), await desk.taken_over()).task
    assert (await desk.row()).failure == {"reason": "unknown_agent", "message": "There is no such agent."}


async def test_model_that_does_not_answer_is_a_failure_with_its_reason(desk: Desk) -> None:
    stored = await desk.answer(Bench("spec: {default: {fault: {kind: server_error}}}"))
    assert stored.failure == {
        "reason": "model_unavailable",
        "message": "The model did not answer. Try again in a moment.",
    }


async def test_bug_in_a_run_ends_that_run_with_notice_and_without_its_text(desk: Desk) -> None:
    bench = Bench(HELLO)
    bench.models.bug = LookupError("secret of somebody")
    stored = await desk.answer(bench)
    assert stored.failure == {"reason": "internal", "message": "Something went wrong on our side."}


async def test_timeout_of_something_inside_is_not_taken_for_the_runs_own(desk: Desk) -> None:
    bench = Bench(HELLO)
    bench.models.bug = TimeoutError("a tool's")
    assert (await desk.answer(bench)).status == "failed"


async def test_answer_larger_than_an_event_is_cut_and_kept_with_its_mark(desk: Desk) -> None:
    stored = await desk.answer(Bench(f"spec: {{default: {{text: '{'word' * 1000} ', repeat: 70}}}}"))
    assert (stored.status, stored.truncated) == ("completed", "size")
    assert stored.answer is not None
    assert len(stored.answer) == MAX_ANSWER
    assert await desk.told() == [CHANGED, READY]
    assert (await desk.viewer()).text == stored.answer


async def test_answer_that_no_event_can_carry_is_a_failure_that_is_told(desk: Desk) -> None:
    bench = Bench(HELLO)
    bench.models.unjudged = ModelResponse(parts=[TextPart(content="word" * 70_000)])
    stored = await desk.answer(bench)
    assert stored.status == "failed"
    assert stored.failure is not None
    assert stored.failure["reason"] == "internal"
    assert await desk.told() == [CHANGED, FAILED]
    assert (await desk.viewer()).outcome is not None


async def test_drained_worker_hands_its_run_back_and_the_next_goes_on(desk: Desk) -> None:
    bench = Bench("spec: {default: {text: one two three, fault: {kind: stall, after: 2, times: 1}}}")
    performing = desk.perform(bench, await desk.claimed())
    await bench.models.begun.wait()
    performing.task.cancel()
    with suppress(asyncio.CancelledError):
        await performing.task
    stored = await desk.row()
    assert (stored.status, stored.tries, stored.worker) == ("queued", 0, None)
    successor = await Worker(desk.database).open()
    await desk.perform(bench, await successor.claim_one()).task
    assert (await desk.row()).answer == "one two three"
    viewer = await desk.viewer()
    assert (viewer.text, viewer.resets) == ("one two three", [None])


async def test_worker_that_lost_its_run_in_mid_answer_writes_nothing_more(desk: Desk) -> None:
    slow = Bench("spec: {default: {text: one two three, start_ms: 50, token_ms: 20}}")
    performing = desk.perform(slow, await desk.claimed())
    await slow.models.begun.wait()
    await desk.perform(Bench(HELLO), await desk.taken_over()).task
    before = await row(desk.database, "SELECT * FROM runs")
    await performing.task
    assert await row(desk.database, "SELECT * FROM runs") == before
    assert await desk.told() == [CHANGED, CHANGED, READY]
    assert (await desk.viewer()).text == "Hello there."
    assert await rows(desk.database, "SELECT epoch FROM steps") == [{"epoch": 2}]


async def test_database_that_is_away_is_waited_for(desk: Desk) -> None:
    bench = Bench(HELLO)
    away = {number: Transient("the database is away") for number in (1, 2, 4, 6, 7, 8)}
    failing = FailingDatabase(desk.database, before=away)
    await desk.perform(bench, await desk.claimed(), database=failing).task
    assert (await desk.row()).answer == "Hello there."
    assert bench.models.replies == 1
    assert await desk.told() == [CHANGED, READY]
    assert failing.calls > 8


async def test_commits_whose_answers_are_lost_count_once(desk: Desk) -> None:
    bench = Bench(CALCULATES)
    lost = {number: Transient("no answer") for number in (2, 4, 6, 8)}  # three steps and the end
    failing = FailingDatabase(desk.database, after=lost)
    await desk.perform(bench, await desk.claimed(), database=failing).task
    assert (bench.models.replies, bench.tool_calls) == (2, 1)
    stored = await desk.row()
    assert (stored.status, stored.answer) == ("completed", "It is 42.")
    assert len(await rows(desk.database, "SELECT ordinal FROM messages")) == 4
    assert await desk.told() == [CHANGED, READY]
    assert await tell_all(desk.database, desk.redis) == 1
    assert (await desk.viewer()).outcome is not None


async def test_run_needs_no_redis_and_its_end_is_shown_when_that_is_back(desk: Desk) -> None:
    async with open_redis("redis://127.0.0.1:1/0") as away:
        await desk.perform(Bench(HELLO), await desk.claimed(), redis=away).task
        stored = await desk.row()
        assert (stored.status, stored.answer) == ("completed", "Hello there.")
        assert stored.terminal_frame is not None
        with pytest.raises(Transient, match="terminal frame"):
            await tell_all(desk.database, away)
    assert await tell_all(desk.database, desk.redis) == 1
    viewer = await desk.viewer()
    assert viewer.text == "Hello there."
    assert viewer.outcome is not None


async def tell_all(database: Database, redis: Redis) -> int:
    await run(database, "UPDATE runs SET finished_at = now() - interval '2 seconds'")
    return await tell_ends(database, redis)


async def test_worker_stops_what_it_is_told_to_stop_and_nothing_else(desk: Desk) -> None:
    bench, other = Bench(STALLS), Session()
    performing = Performing(Means(desk.database, desk.worker.outbox, desk.redis, bench))
    mine = await desk.claimed()
    await desk.worker.inbox.consume(other.created(1))
    both = [asyncio.create_task(performing.perform(one)) for one in (mine, await desk.worker.claim_one())]
    await bench.models.begun.wait()
    await desk.worker.inbox.consume(desk.session.cancelled(1))
    for _ in range(3):
        await performing.look(desk.worker.id)
    await both[0]
    assert (await desk.row()).status == "cancelled"
    assert (await other.run(desk.database, 1)).status == "running"
    await run(desk.database, "UPDATE runs SET expires_at = now() - interval '1 second'")
    await performing.look(desk.worker.id)
    await both[1]
    assert (await other.run(desk.database, 1)).status == "expired"


async def test_run_that_is_ours_without_our_knowing_is_given_up_with_one_try_less(desk: Desk) -> None:
    performing = Performing(Means(desk.database, desk.worker.outbox, desk.redis, Bench(HELLO)))
    await desk.claimed()  # as if the answer to the claim's commit had been lost
    await performing.look(desk.worker.id)
    assert (await desk.row()).status == "running", "its claim may be on its way still"
    await performing.look(desk.worker.id)
    stored = await desk.row()
    assert (stored.status, stored.worker, stored.tries) == ("queued", None, 1)
    await performing.perform(await desk.worker.claim_one())
    assert (await desk.row()).answer == "Hello there."


async def test_second_request_of_a_session_is_claimed_as_soon_as_the_first_has_ended(desk: Desk) -> None:
    first = await desk.claimed()
    await desk.worker.inbox.consume(desk.session.created(2))
    assert await desk.worker.claim() == []
    await desk.perform(Bench("spec: {default: {fault: {kind: server_error}}}"), first).task
    second = await desk.worker.claim_one()
    assert second.turn == 2
    loaded = await queries.load_run(desk.database, second, 10)
    assert loaded.window == (), "a request that failed is not part of what was said"

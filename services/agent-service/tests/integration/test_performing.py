"""Performing a claimed run: it always ends, is handed back, or belongs to another worker."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest
import pytest_asyncio
from pydantic_ai.messages import ModelResponse, TextPart

from agent_service.adapters.replies import MAX_ANSWER
from agent_service.domain.runs import MAX_TRIES
from agent_service.queries import runs as queries
from agent_service.usecases.end_run import append_due_terminal_frames
from agent_service.usecases.perform_run import RunDependencies
from agent_service.workers import ActiveRuns
from shared_clients.errors import Transient
from shared_clients.postgres import Database
from shared_clients.redis import Redis, open_redis
from shared_models.requests import FailureReason, RequestView
from tests.simulators.performing import AGENT, FailingDatabase, RunHarness, ScriptedAgents
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
CALCULATES_THEN_STALLS = """
spec:
  rules: [{when: {tool: calculator}, reply: {fault: {kind: stall}}}]
  default: {calls: [{tool: calculator, arguments: {expression: "6*7"}}]}
"""
REMEMBERS = """
spec:
  rules: [{when: {user: my name, earlier: 'I am (?P<name>\\w+)'}, reply: {text: "You are ${name}."}}]
  default: {text: Nice to meet you.}
"""
READY, FAILED, CHANGED = "flotilla.response.ready.v1", "flotilla.response.failed.v1", "flotilla.run.changed.v1"
GIVEN_UP = f"Something went wrong on our side. The request was given up after {MAX_TRIES} tries."
CANCEL = "INSERT INTO cancellations (tenant, execution_id) SELECT tenant, execution_id FROM runs"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis() -> AsyncGenerator[Redis]:
    async with open_redis("memory://") as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def harness(database: Database, redis: Redis) -> RunHarness:
    return RunHarness(database, redis, await Worker(database).open())


async def test_answer_is_streamed_stored_and_published(harness: RunHarness) -> None:
    agents = ScriptedAgents(HELLO)
    stored = await harness.answer(agents)
    assert (stored.status, stored.answer, stored.terminal_frame) == ("completed", "Hello there.", None)
    viewer = await harness.viewer()
    assert viewer.text == "Hello there."
    assert viewer.outcome is not None
    view = RequestView.model_validate(viewer.outcome[1]["result"])
    assert (view.agent, view.revision) == ("assistant", agents.agent.revision)
    assert view.usage is not None
    assert view.usage.model_calls == 1
    assert await harness.published_types() == [CHANGED, READY]
    kept = await rows(harness.database, "SELECT message->>'kind' AS kind FROM messages ORDER BY ordinal")
    assert [one["kind"] for one in kept] == ["request", "response"]


async def test_next_turn_has_the_earlier_messages(harness: RunHarness) -> None:
    agents = ScriptedAgents(REMEMBERS)
    await harness.answer(agents, "I am Ada")
    assert (await harness.answer(agents, "What is my name?", turn=2)).answer == "You are Ada."


@pytest.mark.parametrize(
    ("reason", "status"), [(FailureReason.CANCELLED_BY_CALLER, "cancelled"), (FailureReason.DEADLINE, "expired")]
)
async def test_run_that_is_stopped_in_mid_answer_ends_with_the_reason(
    harness: RunHarness, reason: FailureReason, status: str
) -> None:
    agents = ScriptedAgents(STALLS)
    performing = harness.perform(agents, await harness.claimed())
    await agents.models.begun.wait()
    performing.cancellation.cancel(reason)
    await performing.task
    stored = await harness.row()
    assert (stored.status, stored.answer) == (status, None)
    assert stored.failure is not None
    assert stored.failure["reason"] == reason.value
    assert await harness.published_types() == [CHANGED, FAILED]
    assert await rows(harness.database, "SELECT turn FROM messages") == []
    outcome = (await harness.viewer()).outcome
    assert outcome is not None
    assert (outcome[0], outcome[1]["code"]) == ("RUN_ERROR", reason.value)


@pytest.mark.parametrize("agent", [AGENT, AGENT.replace("seconds: 30", "seconds: 1")], ids=["cancelled", "out of time"])
async def test_run_that_is_stopped_or_out_of_time_ends_with_its_usage_so_far(harness: RunHarness, agent: str) -> None:
    agents = ScriptedAgents(CALCULATES_THEN_STALLS, agent=agent)
    performing = harness.perform(agents, await harness.claimed())
    if agent is AGENT:
        await agents.models.called_twice.wait()
        performing.cancellation.cancel(FailureReason.CANCELLED_BY_CALLER)
    await performing.task
    assert await stored_usage(harness.database) == 1


async def test_model_that_fails_later_keeps_the_usage_so_far(harness: RunHarness) -> None:
    await harness.answer(ScriptedAgents(CALCULATES_THEN_STALLS.replace("stall", "server_error")))
    assert await stored_usage(harness.database) == 1


async def stored_usage(database: Database) -> int:
    """Return the model calls of the only run, as its row has them."""
    stored = await row(database, "SELECT status, usage FROM runs")
    assert stored["status"] != "completed"
    return int(stored["usage"]["model_calls"])


async def test_drain_of_a_run_that_is_cancelled_at_the_same_moment_hands_it_back(harness: RunHarness) -> None:
    agents = ScriptedAgents(STALLS)
    performing = harness.perform(agents, await harness.claimed())
    await agents.models.begun.wait()
    performing.cancellation.cancel(FailureReason.CANCELLED_BY_CALLER)
    performing.task.cancel()
    with suppress(asyncio.CancelledError):
        await performing.task
    assert (await harness.row()).status == "queued"


async def test_run_that_was_stopped_before_it_began_still_ends(harness: RunHarness) -> None:
    performing = harness.perform(ScriptedAgents(STALLS), await harness.claimed())
    performing.cancellation.cancel(FailureReason.CANCELLED_BY_CALLER)
    await performing.task
    assert (await harness.row()).status == "cancelled"


async def test_active_time_that_is_up_ends_a_run_as_expired(harness: RunHarness) -> None:
    stored = await harness.answer(ScriptedAgents(STALLS, agent=AGENT.replace("seconds: 30", "seconds: 1")))
    assert stored.status == "expired"
    assert stored.failure == {"reason": "deadline", "message": "This request ran out of time."}


@pytest.mark.parametrize(
    ("before", "status", "reason"),
    [
        (CANCEL, "cancelled", "cancelled_by_caller"),
        ("UPDATE runs SET expires_at = now() - interval '1 second'", "expired", "deadline"),
        ("UPDATE sessions SET deleted_at = now()", "refused", "session_deleted"),
    ],
)
async def test_unwanted_run_ends_before_its_model_is_called(
    harness: RunHarness, before: str, status: str, reason: str
) -> None:
    agents = ScriptedAgents(HELLO)
    mine = await harness.claimed()
    await run(harness.database, before)
    await harness.perform(agents, mine).task
    stored = await harness.row()
    assert stored.status == status
    assert stored.failure is not None
    assert stored.failure["reason"] == reason
    assert agents.models.replies == 0


async def test_run_that_kills_its_workers_is_given_up(harness: RunHarness) -> None:
    agents = ScriptedAgents(HELLO)
    await harness.claimed()
    await run(harness.database, "UPDATE runs SET tries = :tries", tries=MAX_TRIES)
    await harness.perform(agents, await harness.taken_over()).task
    stored = await harness.row()
    assert (stored.status, stored.tries) == ("failed", MAX_TRIES + 1)
    assert stored.failure == {"reason": "internal", "message": GIVEN_UP}
    assert agents.models.replies == 0


async def test_agent_that_is_not_there_is_a_failure_with_its_reason(harness: RunHarness) -> None:
    await harness.claimed()
    await run(harness.database, "UPDATE runs SET agent = 'nobody'")
    await harness.perform(ScriptedAgents(HELLO), await harness.taken_over()).task
    assert (await harness.row()).failure == {"reason": "unknown_agent", "message": "There is no such agent."}


async def test_model_that_does_not_answer_is_a_failure_with_its_reason(harness: RunHarness) -> None:
    stored = await harness.answer(ScriptedAgents("spec: {default: {fault: {kind: server_error}}}"))
    assert stored.failure == {
        "reason": "model_unavailable",
        "message": "The model did not answer. Try again in a moment.",
    }


async def test_bug_in_a_run_ends_that_run_with_notice_and_without_its_text(harness: RunHarness) -> None:
    agents = ScriptedAgents(HELLO)
    agents.models.bug = LookupError("secret of somebody")
    stored = await harness.answer(agents)
    assert stored.failure == {"reason": "internal", "message": "Something went wrong on our side."}


async def test_timeout_of_something_inside_is_not_taken_for_the_runs_own(harness: RunHarness) -> None:
    agents = ScriptedAgents(HELLO)
    agents.models.bug = TimeoutError("a tool's")
    assert (await harness.answer(agents)).status == "failed"


async def test_answer_larger_than_an_event_is_cut_and_kept_with_its_mark(harness: RunHarness) -> None:
    stored = await harness.answer(ScriptedAgents(f"spec: {{default: {{text: '{'word' * 1000} ', repeat: 70}}}}"))
    assert (stored.status, stored.truncated) == ("completed", "size")
    assert stored.answer is not None
    assert len(stored.answer) == MAX_ANSWER
    assert await harness.published_types() == [CHANGED, READY]
    assert (await harness.viewer()).text == stored.answer


async def test_answer_that_no_event_can_carry_becomes_a_published_failure(harness: RunHarness) -> None:
    agents = ScriptedAgents(HELLO)
    agents.models.unchecked = ModelResponse(parts=[TextPart(content="word" * 70_000)])
    stored = await harness.answer(agents)
    assert stored.status == "failed"
    assert stored.failure is not None
    assert stored.failure["reason"] == "internal"
    assert await harness.published_types() == [CHANGED, FAILED]
    assert (await harness.viewer()).outcome is not None


async def test_drained_worker_hands_its_run_back_and_the_next_goes_on(harness: RunHarness) -> None:
    agents = ScriptedAgents("spec: {default: {text: one two three, fault: {kind: stall, after: 2, times: 1}}}")
    performing = harness.perform(agents, await harness.claimed())
    await agents.models.begun.wait()
    performing.task.cancel()
    with suppress(asyncio.CancelledError):
        await performing.task
    stored = await harness.row()
    assert (stored.status, stored.tries, stored.worker) == ("queued", 0, None)
    successor = await Worker(harness.database).open()
    await harness.perform(agents, await successor.claim_one()).task
    assert (await harness.row()).answer == "one two three"
    viewer = await harness.viewer()
    assert (viewer.text, viewer.resets) == ("one two three", [None])


async def test_worker_that_lost_its_run_in_mid_answer_writes_nothing_more(harness: RunHarness) -> None:
    slow = ScriptedAgents("spec: {default: {text: one two three, start_ms: 50, token_ms: 20}}")
    performing = harness.perform(slow, await harness.claimed())
    await slow.models.begun.wait()
    await harness.perform(ScriptedAgents(HELLO), await harness.taken_over()).task
    before = await row(harness.database, "SELECT * FROM runs")
    await performing.task
    assert await row(harness.database, "SELECT * FROM runs") == before
    assert await harness.published_types() == [CHANGED, CHANGED, READY]
    assert (await harness.viewer()).text == "Hello there."
    assert await rows(harness.database, "SELECT epoch FROM steps") == [{"epoch": 2}]


async def test_database_that_is_away_is_waited_for(harness: RunHarness) -> None:
    agents = ScriptedAgents(HELLO)
    away = {number: Transient("the database is away") for number in (1, 2, 4, 6, 7, 8)}
    failing = FailingDatabase(harness.database, before=away)
    await harness.perform(agents, await harness.claimed(), database=failing).task
    assert (await harness.row()).answer == "Hello there."
    assert agents.models.replies == 1
    assert await harness.published_types() == [CHANGED, READY]
    assert failing.calls > 8


async def test_commits_whose_answers_are_lost_count_once(harness: RunHarness) -> None:
    agents = ScriptedAgents(CALCULATES)
    lost = {number: Transient("no answer") for number in (2, 4, 6, 8)}  # three steps and the end
    failing = FailingDatabase(harness.database, after=lost)
    await harness.perform(agents, await harness.claimed(), database=failing).task
    assert (agents.models.replies, agents.tool_calls) == (2, 1)
    stored = await harness.row()
    assert (stored.status, stored.answer) == ("completed", "It is 42.")
    assert len(await rows(harness.database, "SELECT ordinal FROM messages")) == 4
    assert await harness.published_types() == [CHANGED, READY]
    assert await tell_all(harness.database, harness.redis) == 1
    assert (await harness.viewer()).outcome is not None


async def test_run_needs_no_redis_and_its_end_is_shown_when_that_is_back(harness: RunHarness) -> None:
    async with open_redis("redis://127.0.0.1:1/0") as away:
        await harness.perform(ScriptedAgents(HELLO), await harness.claimed(), redis=away).task
        stored = await harness.row()
        assert (stored.status, stored.answer) == ("completed", "Hello there.")
        assert stored.terminal_frame is not None
        with pytest.raises(Transient, match="terminal frame"):
            await tell_all(harness.database, away)
    assert await tell_all(harness.database, harness.redis) == 1
    viewer = await harness.viewer()
    assert viewer.text == "Hello there."
    assert viewer.outcome is not None


async def tell_all(database: Database, redis: Redis) -> int:
    await run(database, "UPDATE runs SET finished_at = now() - interval '2 seconds'")
    return await append_due_terminal_frames(database, redis)


async def test_worker_stops_cancelled_and_expired_runs_and_no_others(harness: RunHarness) -> None:
    agents, other = ScriptedAgents(STALLS), Session()
    active_runs = ActiveRuns(RunDependencies(harness.database, harness.worker.outbox, harness.redis, agents))
    mine = await harness.claimed()
    await harness.worker.inbox.consume(other.created(1))
    both = [asyncio.create_task(active_runs.perform(one)) for one in (mine, await harness.worker.claim_one())]
    await agents.models.begun.wait()
    await harness.worker.inbox.consume(harness.session.cancelled(1))
    for _ in range(3):
        await active_runs.stop_unwanted(harness.worker.id)
    await both[0]
    assert (await harness.row()).status == "cancelled"
    assert (await other.run(harness.database, 1)).status == "running"
    await run(harness.database, "UPDATE runs SET expires_at = now() - interval '1 second'")
    await active_runs.stop_unwanted(harness.worker.id)
    await both[1]
    assert (await other.run(harness.database, 1)).status == "expired"


async def test_owned_run_that_is_not_active_here_is_handed_back_with_one_try_less(harness: RunHarness) -> None:
    active_runs = ActiveRuns(
        RunDependencies(harness.database, harness.worker.outbox, harness.redis, ScriptedAgents(HELLO))
    )
    await harness.claimed()  # as if the answer to the claim's commit had been lost
    await active_runs.stop_unwanted(harness.worker.id)
    assert (await harness.row()).status == "running", "its claim may be on its way still"
    await active_runs.stop_unwanted(harness.worker.id)
    stored = await harness.row()
    assert (stored.status, stored.worker, stored.tries) == ("queued", None, 1)
    await active_runs.perform(await harness.worker.claim_one())
    assert (await harness.row()).answer == "Hello there."


async def test_second_request_of_a_session_is_claimed_as_soon_as_the_first_has_ended(harness: RunHarness) -> None:
    first = await harness.claimed()
    await harness.worker.inbox.consume(harness.session.created(2))
    assert await harness.worker.claim() == []
    await harness.perform(ScriptedAgents("spec: {default: {fault: {kind: server_error}}}"), first).task
    second = await harness.worker.claim_one()
    assert second.turn == 2
    loaded = await queries.load_run(harness.database, second, 10)
    assert loaded.window == (), "a request that failed is not part of what was said"

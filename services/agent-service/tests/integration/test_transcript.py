"""One transcript: what people see of a run, what its session keeps, and what the next model is sent are the same."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

import pytest
import pytest_asyncio
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolReturnPart, UserPromptPart

from agent_service.domain.history import text_of
from agent_service.domain.sessions import MessageText, MessageView, ReasoningPart, ToolPart
from agent_service.queries import sessions as queries
from agent_service.usecases.end_run import end_overdue_runs
from shared_clients.postgres import Database
from shared_clients.redis import Redis, open_redis
from shared_models.requests import FailureReason
from tests.simulators.performing import RunHarness, ScriptedAgents
from tests.simulators.rows import run
from tests.simulators.working import Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

ECHO = "spec: {default: {text: 'heard ${turn}, first ${first}'}}"
STALLS = "spec: {default: {text: one two three, fault: {kind: stall, after: 2}}}"
CALCULATES = """
spec:
  rules: [{when: {tool: calculator}, reply: {text: "It is ${result}."}}]
  default: {text: "Let me see.", calls: [{tool: calculator, arguments: {expression: "%s"}}]}
"""
CALCULATES_THEN_STALLS = """
spec:
  rules: [{when: {tool: calculator}, reply: {text: now it is, fault: {kind: stall, after: 2}}}]
  default: {text: "Let me see.", calls: [{tool: calculator, arguments: {expression: "6*7"}}]}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis() -> AsyncGenerator[Redis]:
    async with open_redis("memory://") as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def harness(database: Database, redis: Redis) -> RunHarness:
    return RunHarness(database, redis, await Worker(database).open())


async def listed(harness: RunHarness, *, all_branches: bool = False) -> tuple[MessageView, ...]:
    session = harness.session.session_id
    return await queries.list_messages(
        harness.database, "acme", session, before=None, most=100, all_branches=all_branches
    )


def heard(history: Sequence[ModelMessage]) -> list[str]:
    """Return what a model was sent: texts of people and models, and results of tools."""
    said: list[str] = []
    for message in history:
        if isinstance(message, ModelResponse):
            said += [text] if (text := text_of(message)) else []
        elif isinstance(message, ModelRequest):
            said += [str(part.content) for part in message.parts if isinstance(part, UserPromptPart | ToolReturnPart)]
    return said


async def test_tool_calls_with_results_and_the_words_before_them_are_kept(harness: RunHarness) -> None:
    await harness.answer(ScriptedAgents(CALCULATES % "6*7"), "sum")
    question, answer = await listed(harness)
    assert (question.content, answer.content, answer.error) == ("sum", "It is 42.", None)
    before, tool, after = answer.parts
    assert (before, after) == (
        MessageText(id=before.id, text="Let me see."),
        MessageText(id=after.id, text="It is 42."),
    )
    assert isinstance(tool, ToolPart)
    assert (tool.name, tool.arguments, tool.result, tool.failed) == ("calculator", '{"expression":"6*7"}', "42", False)
    assert tool.milliseconds is not None
    assert (answer.agent, answer.models, answer.started_at is not None) == ("assistant", ("test",), True)
    assert answer.usage is not None
    assert answer.usage.model_calls == 2


async def test_failed_tool_is_marked_in_the_session_and_in_its_frame(harness: RunHarness) -> None:
    await harness.answer(ScriptedAgents(CALCULATES % "6*/7"))
    tool = (await listed(harness))[1].parts[1]
    assert isinstance(tool, ToolPart)
    assert tool.failed
    assert tool.result
    [frame] = [fields for type_, fields in await harness.frames() if type_ == "TOOL_CALL_RESULT"]
    assert (frame["error"], frame["content"]) == (tool.result, tool.result)


@pytest.mark.parametrize(
    ("reason", "status"), [(FailureReason.CANCELLED_BY_CALLER, "cancelled"), (FailureReason.DEADLINE, "expired")]
)
async def test_text_before_a_stop_is_kept_marked_and_known_to_the_next_model(
    harness: RunHarness, reason: FailureReason, status: str
) -> None:
    performing = harness.perform(ScriptedAgents(CALCULATES_THEN_STALLS), await harness.claimed("Plan my trip"))
    await harness.shown("Let me see.now it")
    performing.cancellation.cancel(reason)
    await performing.task
    question, answer = await listed(harness)
    assert (question.content, answer.content, answer.status) == ("Plan my trip", "now it", status)
    assert answer.error is not None
    assert answer.error.reason is reason
    assert [part.text for part in answer.parts if isinstance(part, MessageText)] == ["Let me see.", "now it"]
    assert (await harness.viewer()).text == "Let me see.now it"

    following = ScriptedAgents(ECHO)
    await harness.answer(following, "What did I ask?", turn=2)
    assert heard(following.models.sent) == ["Plan my trip", "Let me see.", "42", "now it", "What did I ask?"]


async def test_text_before_a_failure_is_kept_marked_and_known_to_the_next_model(harness: RunHarness) -> None:
    cut = "spec: {default: {text: one two three, fault: {kind: cut, after: 2}}}"
    await harness.answer(ScriptedAgents(cut), "Plan my trip")
    question, answer = await listed(harness)
    assert (question.content, answer.content, answer.status) == ("Plan my trip", "one two", "failed")
    assert answer.error is not None
    assert answer.error.reason is FailureReason.MODEL_CUT
    following = ScriptedAgents(ECHO)
    await harness.answer(following, "What did I ask?", turn=2)
    assert heard(following.models.sent) == ["Plan my trip", "one two", "What did I ask?"]


async def test_question_of_a_run_that_said_nothing_is_known_to_the_next_model(harness: RunHarness) -> None:
    await harness.answer(ScriptedAgents("spec: {default: {fault: {kind: server_error}}}"), "Plan my trip")
    await harness.worker.inbox.consume(harness.session.created(2, "and back"))
    await harness.worker.inbox.consume(harness.session.cancelled(2))
    await harness.worker.inbox.consume(harness.session.created(3, "to Oslo"))
    await run(harness.database, "UPDATE runs SET expires_at = now() - interval '1 minute' WHERE status = 'queued'")
    assert await end_overdue_runs(harness.database, harness.worker.outbox) == 1
    following = ScriptedAgents(ECHO)
    await harness.answer(following, "What did I ask?", turn=4)
    assert heard(following.models.sent) == ["Plan my trip", "and back", "to Oslo", "What did I ask?"]
    assert [view.content for view in await listed(harness)][:2] == [
        "Plan my trip",
        "The model did not answer. Try again in a moment.",
    ]


async def test_text_that_a_drained_worker_left_unfinished_is_taken_back_everywhere(harness: RunHarness) -> None:
    performing = harness.perform(ScriptedAgents(CALCULATES_THEN_STALLS), await harness.claimed("sum"))
    await harness.shown("Let me see.now it")
    performing.task.cancel()
    with suppress(asyncio.CancelledError):
        await performing.task
    await harness.worker.inbox.consume(harness.session.cancelled(1))
    answer = (await listed(harness))[1]
    assert [part.type for part in answer.parts] == ["text", "tool"]
    assert (answer.content, (await harness.viewer()).text) == ("Let me see.", "Let me see.")


async def test_run_that_is_stopped_after_its_worker_died_shows_only_its_finished_steps(harness: RunHarness) -> None:
    dying = harness.perform(ScriptedAgents(STALLS), await harness.claimed())
    await harness.shown("one two")
    mine = await harness.taken_over()
    await harness.worker.inbox.consume(harness.session.cancelled(1))
    await harness.perform(ScriptedAgents(STALLS), mine).task
    dying.task.cancel()
    with suppress(asyncio.CancelledError):
        await dying.task
    answer = (await listed(harness))[1]
    assert (answer.parts, answer.content) == ((), "This request was cancelled.")
    assert (await harness.viewer()).text == ""


async def test_regenerated_answer_is_made_of_the_question_alone_and_begins_a_branch(harness: RunHarness) -> None:
    agents = ScriptedAgents(ECHO)
    await harness.answer(agents, "one")
    await harness.answer(agents, "two", turn=2)
    await harness.answer(agents, "two", turn=3, after_turn=1)
    assert heard(agents.models.sent) == ["one", "heard 1, first one", "two"]
    both = [harness.session.request(2), harness.session.request(3)]
    current = await listed(harness)
    assert [(view.turn, view.role, view.current) for view in current] == [
        (1, "user", True),
        (1, "assistant", True),
        (3, "user", True),
        (3, "assistant", True),
    ]
    assert current[-1].branches == tuple(both)
    everything = await listed(harness, all_branches=True)
    assert [(view.turn, view.after_turn, view.current) for view in everything if view.role == "user"] == [
        (1, 0, True),
        (2, 1, False),
        (3, 1, True),
    ]
    await harness.answer(agents, "three", turn=4)
    assert heard(agents.models.sent) == ["one", "heard 1, first one", "two", "heard 2, first one", "three"]


async def test_question_that_follows_an_older_branch_makes_that_branch_current(harness: RunHarness) -> None:
    agents = ScriptedAgents(ECHO)
    await harness.answer(agents, "one")
    await harness.answer(agents, "edited", turn=2, after_turn=0)
    assert heard(agents.models.sent) == ["edited"]
    await harness.answer(agents, "on", turn=3, after_turn=1)
    assert heard(agents.models.sent) == ["one", "heard 1, first one", "on"]
    await harness.answer(agents, "and on", turn=4)
    assert heard(agents.models.sent)[0::2] == ["one", "on", "and on"]
    assert [view.turn for view in await listed(harness) if view.role == "user"] == [1, 3, 4]
    older = await queries.list_messages(harness.database, "acme", harness.session.session_id, before=4, most=1)
    assert [view.turn for view in older] == [3, 3]


async def test_answer_of_a_run_without_stored_messages_is_still_shown(harness: RunHarness) -> None:
    await harness.answer(ScriptedAgents(ECHO), "one")
    await run(harness.database, "DELETE FROM messages")
    answer = (await listed(harness))[1]
    assert [part.text for part in answer.parts if not isinstance(part, ToolPart)] == ["heard 1, first one"]
    assert not [part for part in answer.parts if isinstance(part, ReasoningPart)]


async def test_messages_that_cannot_be_read_hide_neither_question_nor_answer(harness: RunHarness) -> None:
    await harness.answer(ScriptedAgents(ECHO), "one")
    await run(harness.database, """UPDATE messages SET message = '{"kind": "of another version"}'""")
    assert [view.content for view in await listed(harness)] == ["one", "heard 1, first one"]


async def test_run_whose_journal_cannot_be_read_ends_with_notice_and_keeps_its_question(harness: RunHarness) -> None:
    dying = harness.perform(ScriptedAgents(CALCULATES_THEN_STALLS), await harness.claimed("sum"))
    await harness.shown("Let me see.now it")
    mine = await harness.taken_over()
    await run(harness.database, """UPDATE steps SET result = '{"kind": "of another version"}'""")
    await harness.perform(ScriptedAgents(ECHO), mine).task
    dying.task.cancel()
    with suppress(asyncio.CancelledError):
        await dying.task
    question, answer = await listed(harness)
    assert (question.content, answer.status) == ("sum", "failed")
    assert answer.error is not None
    assert answer.error.reason is FailureReason.INTERNAL

"""The page, the API and the history of a model tell the same about any run, however it ended.

Conversations are drawn at random: runs that complete, use tools, think, are cut, fail, are stopped at any moment, lose
their worker, are drained or never start, each after the turn before it or in a branch. The page's own reducer, in
Node, reads the frames and the messages.
"""

import asyncio
import json
import random
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolReturnPart, UserPromptPart

from agent_service.app import MIGRATIONS, SCHEMA
from agent_service.domain.history import text_of
from agent_service.domain.sessions import MessageView
from agent_service.queries.sessions import list_messages
from agent_service.usecases.end_run import append_due_terminal_frames
from durable_work.migrating import migrate
from run_frames.log import log_key, read_log
from shared_clients.postgres import Database, open_database
from shared_clients.redis import Redis, open_redis
from shared_models.frames import sse
from shared_models.requests import FailureReason
from tests.simulators.performing import RunHarness, ScriptedAgents
from tests.simulators.rows import run
from tests.simulators.working import Session, Worker, emptied

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEB = Path(__file__).parents[2] / "services/api-gateway/web"
SESSIONS, TURNS = 24, 6
CALLS = """
spec:
  token_ms: 2
  rules: [{when: {tool: calculator}, reply: {text: "So it is ${result}, I would say."%s}}]
  default: {text: "Let me see. ", reasoning: "A sum.", calls: [{tool: calculator, arguments: {expression: "%s"}}]}
"""
SAYS = "spec: {token_ms: 2, default: {text: one two three four five six seven%s}}"
SCRIPTS = {
    "complete": SAYS % "",
    "tool": CALLS % ("", "6*7"),
    "failed tool": CALLS % ("", "6*/7"),
    "thinks": SAYS % ", reasoning: I think",
    "cut": SAYS % ", fault: {kind: cut, after: 3}",
    "cut after a tool": CALLS % (", fault: {kind: cut, after: 2}", "6*7"),
    "length": SAYS % ", fault: {kind: length, after: 4}",
    "unavailable": "spec: {default: {fault: {kind: server_error}}}",
}
UNBROKEN = ["complete", "tool", "failed tool", "thinks", "length"]


@pytest.fixture(scope="module")
def template_url(new_database: Callable[..., str]) -> str:
    url = new_database()
    asyncio.run(migrate(url, SCHEMA, MIGRATIONS))
    return url


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def database(template_url: str) -> AsyncGenerator[Database]:
    async with open_database(template_url, SCHEMA) as opened:
        yield await emptied(opened)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def redis() -> AsyncGenerator[Redis]:
    async with open_redis("memory://") as opened:
        yield opened


async def completes(harness: RunHarness, agents: ScriptedAgents, turn: int, _: random.Random) -> None:
    await harness.perform(agents, await harness.worker.claim_one()).task


async def is_stopped(harness: RunHarness, agents: ScriptedAgents, turn: int, draw: random.Random) -> None:
    performing = harness.perform(agents, await harness.worker.claim_one())
    await asyncio.sleep(draw.uniform(0, 0.04))
    performing.cancellation.cancel(draw.choice([FailureReason.CANCELLED_BY_CALLER, FailureReason.DEADLINE]))
    await performing.task


async def loses_its_worker(harness: RunHarness, agents: ScriptedAgents, turn: int, draw: random.Random) -> None:
    dying = harness.perform(agents, await harness.worker.claim_one())
    await asyncio.sleep(draw.uniform(0, 0.04))
    await harness.worker.die()
    harness.worker = await Worker(harness.database).open()
    claimed = await harness.worker.claim()
    for taken in claimed:
        if draw.random() < 0.5:
            await harness.worker.inbox.consume(harness.session.cancelled(turn))
        await harness.perform(agents, taken).task
    await dying.task


async def is_drained_and_cancelled(harness: RunHarness, agents: ScriptedAgents, turn: int, draw: random.Random) -> None:
    performing = harness.perform(agents, await harness.worker.claim_one())
    await asyncio.sleep(draw.uniform(0, 0.04))
    performing.task.cancel()
    with suppress(asyncio.CancelledError):
        await performing.task
    await never_starts(harness, agents, turn, draw)


async def never_starts(harness: RunHarness, _: ScriptedAgents, turn: int, __: random.Random) -> None:
    await harness.worker.inbox.consume(harness.session.cancelled(turn))


type Course = Callable[[RunHarness, ScriptedAgents, int, random.Random], Awaitable[None]]
COURSES: Sequence[Course] = (
    completes,
    completes,
    completes,
    is_stopped,
    is_stopped,
    loses_its_worker,
    is_drained_and_cancelled,
    never_starts,
)


def heard(history: Sequence[ModelMessage]) -> list[str | None]:
    """What a model was sent; None for a tool call that was interrupted."""
    said: list[str | None] = []
    for message in history:
        if isinstance(message, ModelResponse):
            said += [text] if (text := text_of(message)) else []
            continue
        assert isinstance(message, ModelRequest)
        for part in message.parts:
            if isinstance(part, ToolReturnPart):
                said.append(None if part.outcome == "interrupted" else str(part.content))
            elif isinstance(part, UserPromptPart):
                said.append(str(part.content))
    return said


def told(views: Sequence[MessageView]) -> list[str | None]:
    """The same of the messages that the API lists."""
    said: list[str | None] = []
    for view in views:
        if view.role == "user":
            said.append(view.content)
        said += [part.result if part.type == "tool" else part.text for part in view.parts if part.type != "reasoning"]
    return said


async def converse(database: Database, redis: Redis, draw: random.Random) -> dict[str, object]:
    """Hold a conversation, and return the events of its runs and the messages that the API lists."""
    harness = RunHarness(database, redis, await Worker(database).open(), Session())
    session = harness.session
    for turn in range(1, TURNS + 1):
        after = draw.choice([None, None, draw.randrange(turn)])
        course = draw.choice(COURSES)
        # A drain between a failure and its commit leaves the text of the failed reply on a live page until a reload.
        scripts = UNBROKEN if course is is_drained_and_cancelled else list(SCRIPTS)
        agents = ScriptedAgents(SCRIPTS[draw.choice(scripts)])
        await harness.worker.inbox.consume(session.created(turn, f"question {turn}", after_turn=after))
        await course(harness, agents, turn, draw)
        current = await list_messages(database, "acme", session.session_id, before=None, most=100)
        assert current[-1].turn == turn, "the newest turn ends the current branch"
        if agents.models.histories:
            before = [view for view in current if view.turn < turn or view.role == "user"]
            assert heard(agents.models.histories[0]) == told(before)
    await run(database, "UPDATE runs SET finished_at = finished_at - interval '2 seconds'")
    await append_due_terminal_frames(database, redis)
    views = await list_messages(database, "acme", session.session_id, before=None, most=100, all_branches=True)
    runs = {
        str(session.request(turn)): b"".join(
            [sse(frame) for frame in await read_log(redis, log_key("acme", session.request(turn)))]
        ).decode()
        for turn in range(1, TURNS + 1)
    }
    shown = [str(view.request_id) for view in current if view.role == "user"]
    return {"runs": runs, "messages": [view.model_dump(mode="json") for view in views], "shown": shown}


async def test_page_api_and_model_tell_the_same_of_every_run(database: Database, redis: Redis) -> None:
    if not (WEB / "node_modules").exists():
        pytest.fail("the page's packages are not installed: run `npm ci` in services/api-gateway/web", pytrace=False)
    cases = [await converse(database, redis, random.Random(seed)) for seed in range(SESSIONS)]
    answer = subprocess.run(  # noqa: ASYNC221 - nothing else runs in this loop any more
        ["node", "tests/tell.mjs"], cwd=WEB, input=json.dumps(cases), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    kinds = set[str]()
    for seed, (case, page) in enumerate(zip(cases, json.loads(answer.stdout), strict=True)):
        assert page["live"] == page["stored"], f"seed {seed}"
        assert page["shown"] == case["shown"], f"seed {seed}: the page shows the branch that the API calls current"
        kinds |= {run["status"] for run in page["stored"].values()}
        kinds |= {part["kind"] for run in page["stored"].values() for part in run["parts"]}
    assert kinds >= {"done", "failed", "stopped", "text", "tool", "reasoning"}, "every kind of run was drawn"

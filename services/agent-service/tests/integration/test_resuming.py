"""A run whose process dies at any call to the database: the next process goes on and repeats no finished step."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from agent_service.usecases.end_run import append_due_terminal_frames
from shared_clients.postgres import Database
from shared_clients.redis import Redis, open_redis
from tests.simulators.performing import FailingDatabase, RunHarness, ScriptedAgents
from tests.simulators.rows import row, rows, run
from tests.simulators.runs import Crash
from tests.simulators.working import Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = """
spec:
  rules:
    - when: {tool: calculator, result: '^2$'}
      reply: {text: "Then. ", calls: [{tool: calculator, arguments: {expression: "2*21"}}]}
    - when: {tool: calculator, result: '^42$'}
      reply: {text: The answer is 42.}
  default:
    text: "Let me see. "
    calls:
      - {tool: calculator, arguments: {expression: "6+1"}}
      - {tool: calculator, arguments: {expression: "1+1"}}
"""
MODEL_CALLS, TOOL_CALLS = 3, 3
LOADED, STEPS, END = 1, MODEL_CALLS + TOOL_CALLS, 8
"""Which call to the database is which: one that loads, one for each step, one that ends."""
READY = "flotilla.response.ready.v1"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis() -> AsyncGenerator[Redis]:
    async with open_redis("memory://") as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def harness(database: Database, redis: Redis) -> RunHarness:
    return RunHarness(database, redis, await Worker(database).open())


async def die(harness: RunHarness, agents: ScriptedAgents, failing: FailingDatabase) -> None:
    """Perform a run up to the call at which its process dies."""
    performing = harness.perform(agents, await harness.claimed(), database=failing)
    with pytest.raises(Crash):
        await performing.task
    await asyncio.sleep(0)


async def finished(database: Database) -> tuple[int, int, str | None]:
    """Return how many model calls and tool results the journal has, and the last frame of the last of them."""
    steps = await rows(database, "SELECT key, keep FROM steps ORDER BY created_at, key")
    models = sum(step["key"].startswith("model:") for step in steps)
    return models, len(steps) - models, steps[-1]["keep"] if steps else None


async def check_end(harness: RunHarness, *, swept: bool = False) -> None:
    stored = await harness.row()
    assert (stored.status, stored.answer) == ("completed", "The answer is 42.")
    assert (await harness.published_types()).count(READY) == 1
    kinds = await rows(harness.database, "SELECT message->>'kind' AS kind FROM messages ORDER BY ordinal")
    assert [one["kind"] for one in kinds] == ["request", "response"] * 3
    assert (await finished(harness.database))[:2] == (MODEL_CALLS, TOOL_CALLS)
    viewer = await harness.viewer()
    said = ["Let me see. ", "Then. ", "The answer is 42."]
    assert list(viewer.texts.values()) == (said[-1:] if swept else said), "a swept end makes sure of the answer alone"
    assert viewer.outcome is not None
    assert viewer.outcome[0] == "RUN_FINISHED"


@pytest.mark.parametrize("number", range(LOADED, END + 1))
@pytest.mark.parametrize("durable", [False, True])
async def test_successor_goes_on_behind_the_last_finished_step(harness: RunHarness, number: int, durable: bool) -> None:
    agents = ScriptedAgents(SCRIPT)
    crash = {number: Crash()}
    failing = FailingDatabase(harness.database, **({"after": crash} if durable else {"before": crash}))
    await die(harness, agents, failing)
    models, tools, keep = await finished(harness.database)
    agents.reset_counts()
    ended = durable and number == END
    if ended:
        await run(harness.database, "UPDATE runs SET finished_at = now() - interval '2 seconds'")
        assert await append_due_terminal_frames(harness.database, harness.redis) == 1
        assert await harness.worker.claim() == []
    else:
        mine = await harness.taken_over()
        assert mine.epoch == 2
        await harness.perform(agents, mine).task
        assert (agents.models.replies, agents.tool_calls) == (MODEL_CALLS - models, TOOL_CALLS - tools)
        viewer = await harness.viewer()
        assert viewer.resets == [keep]
    await check_end(harness, swept=ended)


async def test_run_whose_every_worker_dies_at_its_next_step_still_ends(harness: RunHarness) -> None:
    agents = ScriptedAgents(SCRIPT)
    await die(harness, agents, FailingDatabase(harness.database, after={2: Crash()}))
    for _ in range(3):
        performing = harness.perform(
            agents, await harness.taken_over(), database=FailingDatabase(harness.database, after={2: Crash()})
        )
        with pytest.raises(Crash):
            await performing.task
    await harness.perform(agents, await harness.taken_over()).task
    await check_end(harness)
    assert agents.models.replies == MODEL_CALLS
    assert (await row(harness.database, "SELECT epoch FROM runs"))["epoch"] == 5


async def test_usage_counts_the_calls_of_every_epoch_once(harness: RunHarness) -> None:
    agents = ScriptedAgents(SCRIPT)
    await die(harness, agents, FailingDatabase(harness.database, before={6: Crash()}))
    await harness.perform(agents, await harness.taken_over()).task
    outcome = (await harness.viewer()).outcome
    assert outcome is not None
    result = outcome[1]["result"]
    assert isinstance(result, dict)
    assert result["usage"]["model_calls"] == MODEL_CALLS

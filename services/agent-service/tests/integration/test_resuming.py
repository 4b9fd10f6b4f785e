"""A run whose process dies at any call to the database: the next one goes on, and repeats nothing that was finished."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from agent_service.usecases.end_run import tell_ends
from shared_clients.postgres import Database
from shared_clients.redis import Redis, open_redis
from tests.simulators.performing import Bench, Desk, FailingDatabase
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
async def desk(database: Database, redis: Redis) -> Desk:
    return Desk(database, redis, await Worker(database).open())


async def die(desk: Desk, bench: Bench, failing: FailingDatabase) -> None:
    """Perform a run up to the call at which its process dies."""
    performing = desk.perform(bench, await desk.claimed(), database=failing)
    with pytest.raises(Crash):
        await performing.task
    await asyncio.sleep(0)


async def finished(database: Database) -> tuple[int, int, str | None]:
    """Return how many model calls and tool results the journal has, and the last frame of the last of them."""
    steps = await rows(database, "SELECT key, keep FROM steps ORDER BY created_at, key")
    models = sum(step["key"].startswith("model:") for step in steps)
    return models, len(steps) - models, steps[-1]["keep"] if steps else None


async def check_end(desk: Desk, *, swept: bool = False) -> None:
    stored = await desk.row()
    assert (stored.status, stored.answer) == ("completed", "The answer is 42.")
    assert (await desk.told()).count(READY) == 1
    kinds = await rows(desk.database, "SELECT message->>'kind' AS kind FROM messages ORDER BY ordinal")
    assert [one["kind"] for one in kinds] == ["request", "response"] * 3
    assert (await finished(desk.database))[:2] == (MODEL_CALLS, TOOL_CALLS)
    viewer = await desk.viewer()
    said = ["Let me see. ", "Then. ", "The answer is 42."]
    assert list(viewer.texts.values()) == (said[-1:] if swept else said), "a swept end makes sure of the answer alone"
    assert viewer.outcome is not None
    assert viewer.outcome[0] == "RUN_FINISHED"


@pytest.mark.parametrize("number", range(LOADED, END + 1))
@pytest.mark.parametrize("durable", [False, True])
async def test_successor_goes_on_behind_the_last_finished_step(desk: Desk, number: int, durable: bool) -> None:
    bench = Bench(SCRIPT)
    crash = {number: Crash()}
    failing = FailingDatabase(desk.database, **({"after": crash} if durable else {"before": crash}))
    await die(desk, bench, failing)
    models, tools, keep = await finished(desk.database)
    bench.forget()
    ended = durable and number == END
    if ended:
        await run(desk.database, "UPDATE runs SET finished_at = now() - interval '2 seconds'")
        assert await tell_ends(desk.database, desk.redis) == 1
        assert await desk.worker.claim() == []
    else:
        mine = await desk.taken_over()
        assert mine.epoch == 2
        await desk.perform(bench, mine).task
        assert (bench.models.replies, bench.tool_calls) == (MODEL_CALLS - models, TOOL_CALLS - tools)
        viewer = await desk.viewer()
        assert viewer.resets == [keep]
    await check_end(desk, swept=ended)


async def test_run_whose_every_worker_dies_at_its_next_step_still_ends(desk: Desk) -> None:
    bench = Bench(SCRIPT)
    await die(desk, bench, FailingDatabase(desk.database, after={2: Crash()}))
    for _ in range(3):
        performing = desk.perform(
            bench, await desk.taken_over(), database=FailingDatabase(desk.database, after={2: Crash()})
        )
        with pytest.raises(Crash):
            await performing.task
    await desk.perform(bench, await desk.taken_over()).task
    await check_end(desk)
    assert bench.models.replies == MODEL_CALLS
    assert (await row(desk.database, "SELECT epoch FROM runs"))["epoch"] == 5


async def test_usage_counts_the_calls_of_every_epoch_once(desk: Desk) -> None:
    bench = Bench(SCRIPT)
    await die(desk, bench, FailingDatabase(desk.database, before={6: Crash()}))
    await desk.perform(bench, await desk.taken_over()).task
    outcome = (await desk.viewer()).outcome
    assert outcome is not None
    result = outcome[1]["result"]
    assert isinstance(result, dict)
    assert result["usage"]["model_calls"] == MODEL_CALLS

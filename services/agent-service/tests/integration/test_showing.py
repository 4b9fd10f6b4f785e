"""The loop with the real frame writer: a client keeps the whole answer in the end, after any broken stream."""

import json
from collections.abc import AsyncIterator, Iterable

import pytest

from agent_service.adapters.models import ModelCandidate, ModelChain
from agent_service.adapters.scripted import ScriptedModel
from agent_service.adapters.scripts import ModelScript
from agent_service.adapters.tools import Toolbox
from agent_service.domain.history import user_turn
from agent_service.usecases.run_agent import run_agent
from shared_clients.redis import Redis, open_redis
from shared_models.agents import AgentLimits, ModelRef, parse_document
from shared_models.frames import Cursor, Frame
from shared_models.ids import new_id
from tests.simulators.runs import MemoryJournal
from tests.simulators.streams import Run, flushed

SCRIPT = """
apiVersion: flotilla/v1
kind: ModelScript
metadata: {name: test}
spec:
  rules:
    - when: {tool: calculator}
      reply: {text: "one two three four five", fault: {kind: cut, after: 3, times: 1}, token_ms: 5}
  default: {text: "Let me see. ", calls: [{tool: calculator, arguments: {expression: "6*7"}}]}
"""


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    async with open_redis("memory://") as redis:
        yield redis


def kept(frames: Iterable[Frame]) -> list[str]:
    """Return the text of each message that a client shows in the end."""
    starts: list[tuple[Cursor, str]] = []
    texts: dict[str, str] = {}
    for frame in frames:
        event = json.loads(frame.data)
        if event["type"] == "TEXT_MESSAGE_START":
            starts.append((frame.cursor, event["messageId"]))
            texts[event["messageId"]] = ""
        elif event["type"] == "TEXT_MESSAGE_CONTENT":
            texts[event["messageId"]] += event["delta"]
        elif event["type"] == "CUSTOM" and event["name"] == "reset":
            keep = Cursor.parse(event["value"]["keep"])
            starts = [(cursor, message) for cursor, message in starts if cursor <= keep]
    return [texts[message] for _, message in starts]


async def test_a_follower_keeps_the_answer_and_nothing_that_broke_off(redis: Redis) -> None:
    run, model = Run(redis), ScriptedModel(parse_document("test.yaml", SCRIPT, ModelScript))
    async with run.writer() as writer:
        await writer.begin(None, [])
        answered = await run_agent(
            [user_turn("What is 6*7?", new_id())],
            Toolbox().pick(["calculator"]),
            AgentLimits(),
            models=ModelChain([ModelCandidate(ModelRef(provider="scripted", name="test"), model)]),
            journal=MemoryJournal(),
            frames=writer,
        )
        await flushed(writer)

    frames = await run.log()

    assert answered.text == "one two three four five"
    assert kept(frames) == ["Let me see. ", answered.text]
    assert [frame.type for frame in frames].count("TOOL_CALL_RESULT") == 1
    custom = [json.loads(frame.data)["name"] for frame in frames if frame.type == "CUSTOM"]
    assert custom == ["reset", "retrying"]

"""The loop, with the scripted model and real tools; journal and frames are in memory, and processes die."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse

from agent_service.adapters.models import ModelCandidate, ModelChain
from agent_service.adapters.scripted import ScriptedModel
from agent_service.adapters.scripts import ModelScript, Reply, Rule
from agent_service.domain.history import text_of, user_turn
from agent_service.errors import ToolFailed, TooManySteps
from agent_service.ports import Frames, Models, Tool
from agent_service.usecases.run_agent import Answered, run_agent
from shared_clients.errors import Stale
from shared_models.agents import AgentLimits, ModelRef
from shared_models.ids import new_id
from tests.simulators.runs import Crash, FrameLog, MemoryJournal

NUMBER = {
    "type": "object",
    "properties": {"n": {"type": "string", "pattern": "^[0-9]+$"}},
    "required": ["n"],
    "additionalProperties": False,
}


def script(default: Reply, *rules: Mapping[str, object]) -> ModelScript:
    return ModelScript.model_validate(
        {
            "apiVersion": "flotilla/v1",
            "kind": "ModelScript",
            "metadata": {"name": "test"},
            "spec": {"rules": [Rule.model_validate(rule) for rule in rules], "default": default},
        }
    )


def chain(*scripts: ModelScript) -> ModelChain:
    ref = ModelRef(provider="scripted", name="test")
    return ModelChain([ModelCandidate(ref, ScriptedModel(script)) for script in scripts])


COUNTING = script(
    Reply(text="Let me count. ", calls=({"tool": "count", "arguments": {"n": "0"}},)),
    {"when": {"tool": "count", "result": "^10$"}, "reply": {"text": "I counted to ten."}},
    {
        "when": {"tool": "count", "result": "(?P<n>[0-9]+)"},
        "reply": {"text": "On I go. ", "calls": [{"tool": "count", "arguments": {"n": "${n}"}}]},
    },
)


@dataclass
class RestartableRun:
    """One run that goes on in a new process after each crash, with a count of its tool calls."""

    models: Models
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    frames: FrameLog = field(default_factory=FrameLog)
    model_calls: int = 0
    tool_calls: list[str] = field(default_factory=list)

    async def stream_reply(
        self, history: Sequence[ModelMessage], tools: Sequence[Tool], frames: Frames
    ) -> ModelResponse:
        self.model_calls += 1
        return await self.models.stream_reply(history, tools, frames)

    async def count(self, arguments: Mapping[str, object]) -> str:
        self.tool_calls.append(str(arguments["n"]))
        return str(int(str(arguments["n"])) + 1)

    async def attempt(self, said: str = "count", *, steps: int = 20) -> Answered:
        """Run in one process; a new one gets new frames and the same journal."""
        self.frames = FrameLog(self.frames.epoch + 1)
        return await run_agent(
            [user_turn(said, new_id())],
            [Tool("count", "Adds one.", NUMBER, self.count)],
            AgentLimits(steps=steps),
            models=self,
            journal=self.journal,
            frames=self.frames,
        )


async def test_an_answer_is_the_text_of_the_last_message_shown() -> None:
    run = RestartableRun(chain(COUNTING))

    answered = await run.attempt()

    assert answered.text == "I counted to ten."
    assert run.frames.texts()[-1] == answered.text
    assert answered.usage.model_calls == 11
    assert len(answered.messages) == 21
    assert run.frames.open == set()


async def test_frames_of_a_step_come_in_the_order_that_clients_expect() -> None:
    run = RestartableRun(chain(COUNTING))

    await run.attempt()

    step = ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"]
    call = ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"]
    assert run.frames.types == (step + call) * 10 + step


async def test_a_process_that_dies_after_every_step_repeats_none() -> None:
    run = RestartableRun(chain(COUNTING))
    crashes = 0

    while True:
        run.journal.crash_after = 1
        try:
            answered = await run.attempt()
        except Crash:
            crashes += 1
            continue
        break

    assert crashes == 21
    assert run.model_calls == 11
    assert run.tool_calls == [str(n) for n in range(10)]
    assert answered.text == "I counted to ten."
    assert answered.usage.model_calls == 11


@pytest.mark.parametrize("finished", range(21))
async def test_a_process_that_dies_before_a_step_is_durable_repeats_only_that_step(finished: int) -> None:
    run = RestartableRun(chain(COUNTING))
    run.journal.crash_after = finished or None
    if finished:
        with pytest.raises(Crash):
            await run.attempt()
    run.journal.stale = True
    with pytest.raises(Stale):
        await run.attempt()
    run.journal.stale, run.journal.crash_after = False, None

    answered = await run.attempt()

    assert answered.text == "I counted to ten."
    assert run.model_calls + len(run.tool_calls) == 21 + 1


async def test_the_answer_after_a_crash_is_the_same_without_asking_again() -> None:
    run = RestartableRun(chain(COUNTING))
    first = await run.attempt()

    second = await run.attempt()

    assert second == first
    assert run.model_calls == 11
    assert run.frames.frames == []


async def test_calls_of_one_message_run_side_by_side() -> None:
    meeting = asyncio.Barrier(3)

    async def meet(_: Mapping[str, object]) -> str:
        await asyncio.wait_for(meeting.wait(), 5)
        return "met"

    calls = tuple({"tool": "meet"} for _ in range(3))
    models = chain(
        script(
            Reply.model_validate({"calls": calls}),
            {"when": {"tool": "meet"}, "reply": {"text": "All three met."}},
        )
    )
    log, journal = FrameLog(), MemoryJournal()

    answered = await run_agent(
        [user_turn("go", new_id())],
        [Tool("meet", "Waits for the others.", {"type": "object"}, meet)],
        AgentLimits(),
        models=models,
        journal=journal,
        frames=log,
    )

    assert answered.text == "All three met."
    assert log.types.count("TOOL_CALL_RESULT") == 3
    assert len(journal.steps) == 5


async def test_wrong_tool_call_goes_back_to_the_model() -> None:
    models = chain(
        script(
            Reply.model_validate({"calls": [{"tool": "count", "arguments": {"n": "many"}}]}),
            {
                "when": {"tool": "count", "result": "do not fit its schema"},
                "reply": {"calls": [{"tool": "conut", "arguments": {}}]},
            },
            {"when": {"tool": "conut", "result": "(?P<told>.*)"}, "reply": {"text": "I was told: ${told}"}},
        )
    )
    run = RestartableRun(models)

    answered = await run.attempt()

    assert answered.text == "I was told: There is no tool named 'conut'. The tools are: count."
    assert run.tool_calls == []


async def test_failure_of_a_tool_goes_back_to_the_model() -> None:
    async def refuse(_: Mapping[str, object]) -> str:
        raise ToolFailed("The office is closed.")

    models = chain(
        script(
            Reply.model_validate({"calls": [{"tool": "ask"}]}),
            {"when": {"tool": "ask", "result": "(?P<why>.*)"}, "reply": {"text": "Sorry: ${why}"}},
        )
    )

    answered = await run_agent(
        [user_turn("go", new_id())],
        [Tool("ask", "Asks.", {"type": "object"}, refuse)],
        AgentLimits(),
        models=models,
        journal=MemoryJournal(),
        frames=FrameLog(),
    )

    assert answered.text == "Sorry: The office is closed."


async def test_bug_in_a_tool_ends_the_run_and_its_other_calls() -> None:
    stopped = asyncio.Event()

    async def fail(_: Mapping[str, object]) -> str:
        raise LookupError("a bug")

    async def wait(_: Mapping[str, object]) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    models = chain(script(Reply.model_validate({"calls": [{"tool": "wait"}, {"tool": "fail"}]})))

    with pytest.raises(LookupError, match="a bug"):
        await run_agent(
            [user_turn("go", new_id())],
            [Tool("fail", "", {"type": "object"}, fail), Tool("wait", "", {"type": "object"}, wait)],
            AgentLimits(),
            models=models,
            journal=MemoryJournal(),
            frames=FrameLog(),
        )

    assert stopped.is_set()


async def test_an_agent_that_never_answers_is_stopped() -> None:
    run = RestartableRun(chain(COUNTING))

    with pytest.raises(TooManySteps, match=r"The agent took more steps than it may. \(4 model calls\)"):
        await run.attempt(steps=4)

    assert len(run.tool_calls) == 3


async def test_a_model_that_broke_off_is_asked_once_more_and_its_text_is_taken_back() -> None:
    models = chain(
        script(Reply.model_validate({"text": "one two three four", "fault": {"kind": "cut", "after": 2, "times": 1}}))
    )
    run = RestartableRun(models)

    answered = await run.attempt()

    assert answered.text == "one two three four"
    assert run.frames.texts() == ["one two three four"]
    assert run.frames.types == [
        *["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"],
        *["CUSTOM", "MESSAGES_SNAPSHOT", "CUSTOM"],
        *["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"],
    ]


async def test_text_that_no_database_can_hold_is_shown_and_kept_alike() -> None:
    models = chain(script(Reply(text="nul \0 and half a \ud83d pair")))
    run = RestartableRun(models)

    answered = await run.attempt()

    assert answered.text == "nul \ufffd and half a ? pair"
    assert run.frames.texts() == [answered.text]
    assert isinstance(answered.messages[-1], ModelResponse)
    assert text_of(answered.messages[-1]) == answered.text

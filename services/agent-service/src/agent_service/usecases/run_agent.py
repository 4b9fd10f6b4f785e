"""Run an agent: ask its model, call the tools it asks for, and so on until it answers.

`perform_run` calls this for a run it has claimed. Each finished model call and tool result is journaled before
anything builds on it, so a successor after a crash repeats none of them. A run that waits for something outside will
be one more outcome beside `Answered`: the journal already holds all it needs to go on.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart

from agent_service.domain.history import dump, load, message_id, settled, text_of, truncation_of, usage_of, window
from agent_service.domain.transcript import result_id
from agent_service.errors import RunFailed, TooManySteps
from agent_service.ports import Frames, Journal, Models, Tool
from agent_service.usecases.call_tool import call_tool
from shared_models.agents import AgentLimits
from shared_models.requests import Truncation, Usage


@dataclass(frozen=True, slots=True)
class Answered:
    """The agent is done.

    Attributes:
        messages: what the run adds to its session after the person's message; the last one is the answer.
        text: the answer, exactly as its frames concatenate.
        usage: of all the run's model calls, those before a crash included.
        truncated: why the answer ends before the model was done, if it does.
    """

    messages: tuple[ModelMessage, ...]
    text: str
    usage: Usage
    truncated: Truncation | None = None


async def run_agent(
    history: Sequence[ModelMessage],
    tools: Sequence[Tool],
    limits: AgentLimits,
    *,
    models: Models,
    journal: Journal,
    frames: Frames,
) -> Answered:
    """Work on what the person said last until there is an answer.

    Args:
        history: the session so far, ending with the person's message.
        tools: what the agent may call in place.
        limits: `steps` bounds the model calls, `history_messages` what is sent of the session.
        models: answer.
        journal: what earlier epochs finished, and where this one records.
        frames: shows the work as it goes on.

    Raises:
        RunFailed: with the usage so far.
        Stale: another worker owns the run.
    """
    sent = window(history, limits.history_messages)
    mine: list[ModelMessage] = []
    try:
        for n in range(1, limits.steps + 1):
            if (done := journal.finished(f"model:{n}")) is not None:
                reply = _response(load(done))
            else:
                reply = settled(await models.stream_reply([*sent, *mine], tools, frames), [*sent, *mine])
                _announce(reply, frames)
                await journal.record(f"model:{n}", dump(reply), frames.last)
            mine.append(reply)
            if not reply.tool_calls:
                return Answered(tuple(mine), text_of(reply), usage_of(mine), truncation_of(reply))
            if n < limits.steps:
                mine.append(await _results(reply.tool_calls, tools, journal, frames))
        raise TooManySteps(f"{limits.steps} model calls")
    except RunFailed as failure:
        failure.usage = usage_of(mine)
        raise


def _response(message: ModelMessage) -> ModelResponse:
    assert isinstance(message, ModelResponse), "a step named model:<n> holds a response"
    return message


def _announce(reply: ModelResponse, frames: Frames) -> None:
    """Show the calls of a whole response; those of a broken one were never shown."""
    for call in reply.tool_calls:
        frames.append(
            "TOOL_CALL_START",
            toolCallId=call.tool_call_id,
            toolCallName=call.tool_name,
            parentMessageId=message_id(reply),
        )
        frames.append("TOOL_CALL_ARGS", toolCallId=call.tool_call_id, delta=call.args_as_json_str())
        frames.append("TOOL_CALL_END", toolCallId=call.tool_call_id)


async def _results(
    calls: Sequence[ToolCallPart], tools: Sequence[Tool], journal: Journal, frames: Frames
) -> ModelRequest:
    """Return one result for each call, running side by side those that the journal does not know."""
    found = {call.tool_call_id: journal.finished(f"tool:{call.tool_call_id}") for call in calls}
    results = {call_id: _result(load(done)) for call_id, done in found.items() if done is not None}
    by_name: Mapping[str, Tool] = {tool.name: tool for tool in tools}
    running = [asyncio.create_task(call_tool(by_name, call)) for call in calls if call.tool_call_id not in results]
    try:
        # Recorded one after the other, each before the next is shown: a step's frames end where its `keep` says.
        for soonest in asyncio.as_completed(running):
            result = await soonest
            _show_result(result, frames)
            await journal.record(f"tool:{result.tool_call_id}", dump(ModelRequest(parts=[result])), frames.last)
            results[result.tool_call_id] = result
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return ModelRequest(parts=[results[call.tool_call_id] for call in calls])


def _result(message: ModelMessage) -> ToolReturnPart:
    [part] = message.parts
    assert isinstance(part, ToolReturnPart), "a step named tool:<call id> holds one result"
    return part


def _show_result(result: ToolReturnPart, frames: Frames) -> None:
    frames.append(
        "TOOL_CALL_RESULT",
        messageId=result_id(result),
        toolCallId=result.tool_call_id,
        role="tool",
        content=result.model_response_str(wrap_if_error=False),
    )

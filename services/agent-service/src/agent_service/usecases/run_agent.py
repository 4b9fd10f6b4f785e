"""Run an agent: call its model, run the tool calls of the reply, and repeat until a reply has none.

`perform_run` calls this for a claimed run. Each finished model call and tool result is journaled before anything builds
on it, so the next worker after a crash repeats none of them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart

from agent_service.domain.history import dump, load, message_id, sanitized, text_of, truncation_of, usage_of, window
from agent_service.domain.transcript import result_id
from agent_service.errors import TooManySteps
from agent_service.ports import Frames, Journal, Models, Tool
from agent_service.usecases.call_tool import call_tool
from shared_models.agents import AgentLimits
from shared_models.requests import Truncation, Usage


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer of an agent.

    Attributes:
        messages: the messages that the run adds to its session after the person's; the last one is the answer.
        text: the text of the answer, equal to its frames put together.
        usage: of all the run's model calls, those before a crash included.
        truncated: the reason why the answer ends before the model was done; None for a whole answer.
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
    """Work on the last message of the history until a model answers it.

    Args:
        history: the session so far, ending with the person's message.
        tools: the tools that the agent may call in place.
        limits: `steps` bounds the model calls, `history_messages` the messages of the session that are sent.
        models: the agent's models.
        journal: holds the finished steps of earlier epochs, and records those of this one.
        frames: shows the work as it goes on.

    Raises:
        RunFailed: no model answers, or the steps are used up.
        Stale: another worker owns the run.
    """
    sent = window(history, limits.history_messages)
    added: list[ModelMessage] = []
    for n in range(1, limits.steps + 1):
        if (finished := journal.finished(f"model:{n}")) is not None:
            reply = _response(load(finished))
        else:
            reply = sanitized(await models.stream_reply([*sent, *added], tools, frames), [*sent, *added])
            _show_calls(reply, frames)
            await journal.record(f"model:{n}", dump(reply), frames.last)
        added.append(reply)
        if not reply.tool_calls:
            return Answered(tuple(added), text_of(reply), usage_of(added), truncation_of(reply))
        if n < limits.steps:
            added.append(await _results(reply.tool_calls, tools, journal, frames))
    raise TooManySteps(f"{limits.steps} model calls")


def _response(message: ModelMessage) -> ModelResponse:
    assert isinstance(message, ModelResponse), "a step named model:<n> holds a response"
    return message


def _show_calls(reply: ModelResponse, frames: Frames) -> None:
    """Append the frames of a response's tool calls; the calls of a response that broke off are never shown."""
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
    """Return one result for each call; the calls without a journaled result run side by side."""
    journaled = {call.tool_call_id: journal.finished(f"tool:{call.tool_call_id}") for call in calls}
    results = {call_id: _result(load(message)) for call_id, message in journaled.items() if message is not None}
    by_name: Mapping[str, Tool] = {tool.name: tool for tool in tools}
    running = [asyncio.create_task(call_tool(by_name, call)) for call in calls if call.tool_call_id not in results]
    try:
        # Each result is recorded before the next is shown, so that the frames of a step end at its `keep`.
        for next_result in asyncio.as_completed(running):
            result = await next_result
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

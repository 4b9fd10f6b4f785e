"""Transcripts: messages as clients see them, whether a run goes on (AG-UI messages) or has ended (parts)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from uuid import UUID

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ThinkingPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.messages import TextPart as ModelTextPart

from agent_service.domain.history import MESSAGE_ID, REASONING_SUFFIX, message_id, text_of
from agent_service.domain.sessions import MessageText, MessageView, Part, ReasoningPart, ToolPart
from shared_models.requests import Failure, Status, Truncation, Usage

MILLISECONDS = "milliseconds"
"""The key in the metadata of a tool's result of the time that the tool took."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as its owner reads it: the question, and all that was said and done about it.

    Attributes:
        messages: of the run; none before its end, and none for a run that failed before messages were kept.
        after_turn, current, branches: see `MessageView`.
    """

    request_id: UUID
    turn: int
    status: Status
    question: str
    answer: str | None
    truncated: Truncation | None
    failure: Failure | None
    messages: tuple[ModelMessage, ...]
    after_turn: int
    current: bool
    branches: tuple[UUID, ...]
    agent: str | None
    revision: str | None
    usage: Usage | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


type AguiMessage = Mapping[str, object]


def transcript(history: Sequence[ModelMessage]) -> list[AguiMessage]:
    """Return AG-UI messages (`id`, `role`, `content`, …) in the order of the history."""
    return [agui for message in history for agui in _messages_of(message)]


def message_views(run: StoredRun) -> list[MessageView]:
    """Return the messages of a run as its owner reads them: the question, and once the run has ended the answer."""
    asked = MessageView(
        id=f"{run.request_id}:user",
        turn=run.turn,
        role="user",
        content=run.question,
        request_id=run.request_id,
        status=run.status,
        after_turn=run.after_turn,
        current=run.current,
        branches=run.branches,
        created_at=run.created_at,
    )
    return [asked] if run.finished_at is None else [asked, _answer_view(run, asked, run.finished_at)]


def _answer_view(run: StoredRun, asked: MessageView, ended_at: datetime) -> MessageView:
    answer_id = f"{run.request_id}:assistant"
    parts = parts_of(run.messages)
    if not parts and run.answer:
        parts = (MessageText(id=answer_id, text=run.answer),)
    texts = [part.text for part in parts if isinstance(part, MessageText)]
    said = run.answer if run.answer is not None else next(reversed(texts), run.failure.message if run.failure else "")
    names = dict.fromkeys(
        message.model_name for message in run.messages if isinstance(message, ModelResponse) and message.model_name
    )
    return asked.model_copy(
        update={
            "id": answer_id,
            "role": "assistant",
            "content": said,
            "parts": parts,
            "truncated": run.truncated,
            "error": run.failure,
            "agent": run.agent,
            "revision": run.revision,
            "models": tuple(names),
            "usage": run.usage,
            "started_at": run.started_at,
            "created_at": ended_at,
        }
    )


def parts_of(messages: Sequence[ModelMessage]) -> tuple[Part, ...]:
    """Return all that an agent said and did in one run, in the order in which people saw it."""
    results = {
        part.tool_call_id: part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)
    }
    responses = [message for message in messages if isinstance(message, ModelResponse)]
    return tuple(part for response in responses for part in _response_parts(response, results))


def _response_parts(response: ModelResponse, results: Mapping[str, ToolReturnPart]) -> Iterable[Part]:
    shown = message_id(response)
    if reasoning := reasoning_of(response):
        yield ReasoningPart(id=f"{shown}{REASONING_SUFFIX}", text=reasoning)
    if text := text_of(response):
        yield MessageText(id=shown, text=text)
    for call in response.tool_calls:
        result = results.get(call.tool_call_id)
        yield ToolPart(
            id=call.tool_call_id,
            name=call.tool_name,
            arguments=call.args_as_json_str(),
            result=None if result is None else result.model_response_str(wrap_if_error=False),
            failed=result is not None and result.outcome != "success",
            milliseconds=None if result is None else milliseconds_of(result),
        )


def reasoning_of(response: ModelResponse) -> str:
    """Return the reasoning that a model showed before the text of its response."""
    before = takewhile(lambda part: not (isinstance(part, ModelTextPart) and part.content), response.parts)
    return "".join(part.content for part in before if isinstance(part, ThinkingPart))


def milliseconds_of(part: ToolReturnPart) -> int | None:
    """Return the time that a tool took; None for a result that was stored before the time was."""
    metadata = part.metadata
    return metadata.get(MILLISECONDS) if isinstance(metadata, Mapping) else None


def result_id(part: ToolReturnPart) -> str:
    """Return the id of the message that shows a tool's result."""
    metadata = part.metadata
    return str(metadata[MESSAGE_ID]) if isinstance(metadata, Mapping) and MESSAGE_ID in metadata else part.tool_call_id


def _messages_of(message: ModelMessage) -> list[AguiMessage]:
    if isinstance(message, ModelRequest):
        return [agui for part in message.parts if (agui := _request_part(message, part)) is not None]
    return [_assistant_message(message)]


def _request_part(message: ModelRequest, part: object) -> AguiMessage | None:
    if isinstance(part, UserPromptPart):
        content = part.content if isinstance(part.content, str) else ""
        return {"id": message_id(message), "role": "user", "content": content}
    if isinstance(part, ToolReturnPart):
        content = part.model_response_str(wrap_if_error=False)
        error = {} if part.outcome == "success" else {"error": content}
        return {"id": result_id(part), "role": "tool", "content": content, "toolCallId": part.tool_call_id, **error}
    return None


def _assistant_message(response: ModelResponse) -> AguiMessage:
    agui: dict[str, object] = {"id": message_id(response), "role": "assistant"}
    if text := text_of(response):
        agui["content"] = text
    if calls := response.tool_calls:
        agui["toolCalls"] = [
            {
                "id": call.tool_call_id,
                "type": "function",
                "function": {"name": call.tool_name, "arguments": call.args_as_json_str()},
            }
            for call in calls
        ]
    return agui

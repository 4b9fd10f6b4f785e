"""Histories: the part of a conversation that a model is sent, and the stored form of its messages.

A provider refuses a history that starts in the middle of a turn, or in which a tool call and its result are no pair. A
stored conversation may have both faults, because turns fail and a window cuts turns. `window` makes it sendable.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from uuid import UUID, uuid5

from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
    repair_messages,
)

from shared_models.ids import new_id
from shared_models.requests import Truncation, Usage

MESSAGE_ID = "message_id"
"""The key in a message's metadata of the id under which frames and snapshots show it; providers never see it."""

TRUNCATED = "truncated"
"""The key in a response's metadata of the `Truncation` of its text."""

_ID_NAMESPACE = UUID("7c7e1e0c-4b0e-5d0c-9a55-0d6b4f1f2a10")


def user_turn(content: str, message_id: UUID) -> ModelRequest:
    """Return the text of a person as a message."""
    return ModelRequest(parts=[UserPromptPart(content=plain(content))], metadata={MESSAGE_ID: str(message_id)})


def window(messages: Sequence[ModelMessage], limit: int) -> list[ModelMessage]:
    """Return the end of a conversation in a form that every provider accepts.

    Args:
        messages: the conversation, ending with the person's current message.
        limit: the number of messages to send at most; the current turn is sent whole even if it is longer.

    Raises:
        ValueError: the conversation has no message of a person.
    """
    sendable = [message for message in messages if _has_content(message)]
    turns = [index for index, message in enumerate(sendable) if _is_user_turn(message)]
    if not turns:
        msg = "a history needs at least one message of a person"
        raise ValueError(msg)
    start = next((index for index in turns if index >= len(sendable) - limit), turns[-1])
    return repair_messages(list(_without_stray_results(sendable[start:])))


def _without_stray_results(messages: Iterable[ModelMessage]) -> Iterator[ModelMessage]:
    """Drop each tool result that answers no open call of the response right before it.

    `repair_messages` adds missing results, but keeps results that came twice or too late.
    """
    unanswered: list[str] = []
    for message in messages:
        if isinstance(message, ModelResponse):
            unanswered = [call.tool_call_id for call in message.tool_calls]
            yield message
            continue
        parts: list[ModelRequestPart] = []
        for part in message.parts:
            if isinstance(part, ToolReturnPart):
                if part.tool_call_id not in unanswered:
                    continue
                unanswered.remove(part.tool_call_id)
            parts.append(part)
        if parts:
            yield replace(message, parts=parts)


def _is_user_turn(message: ModelMessage) -> bool:
    return isinstance(message, ModelRequest) and any(isinstance(part, UserPromptPart) for part in message.parts)


def _has_content(message: ModelMessage) -> bool:
    """Return whether a message has content; providers refuse an empty one."""
    if isinstance(message, ModelRequest):
        return bool(message.parts)
    return bool(message.tool_calls or text_of(message))


def text_of(response: ModelResponse) -> str:
    """Return the text of a response, equal to its frames put together."""
    return "".join(part.content for part in response.parts if isinstance(part, TextPart))


def truncation_of(response: ModelResponse) -> Truncation | None:
    """Return the reason why a response ends before the model was done; None for a whole one."""
    why = (response.metadata or {}).get(TRUNCATED)
    return Truncation(why) if why else None


def usage_of(messages: Iterable[ModelMessage]) -> Usage:
    responses = [message for message in messages if isinstance(message, ModelResponse)]
    return Usage(
        input_tokens=sum(response.usage.input_tokens for response in responses),
        output_tokens=sum(response.usage.output_tokens for response in responses),
        model_calls=len(responses),
    )


def plain(text: str) -> str:
    """Replace NUL and halves of surrogate pairs, which neither JSON nor Postgres can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode(errors="replace").decode()
    return text.replace("\0", "\ufffd")


def sanitized(response: ModelResponse, earlier: Iterable[ModelMessage]) -> ModelResponse:
    """Return a response with text that can be stored, and with tool call ids that no earlier response has.

    Some servers number the calls of each response from zero; two calls under one id would share a journal entry.
    """
    taken = {
        call.tool_call_id for message in earlier if isinstance(message, ModelResponse) for call in message.tool_calls
    }
    parts: list[ModelResponsePart] = []
    for part in response.parts:
        if isinstance(part, TextPart | ThinkingPart):
            parts.append(replace(part, content=plain(part.content)))
        elif isinstance(part, ToolCallPart):
            call_id = part.tool_call_id if part.tool_call_id not in taken else f"call_{new_id().hex}"
            taken.add(call_id)
            renamed = replace(part, tool_call_id=call_id)
            parts.append(replace(renamed, args=plain(part.args)) if isinstance(part.args, str) else renamed)
        else:
            parts.append(part)
    return replace(response, parts=parts)


def message_id(message: ModelMessage) -> str:
    """Return the id under which a message is shown: its own, or one that is derived from its time."""
    own = (message.metadata or {}).get(MESSAGE_ID)
    return str(own or uuid5(_ID_NAMESPACE, f"{message.kind} {_time(message)}"))


def _time(message: ModelMessage) -> str:
    stamps = [getattr(part, "timestamp", None) for part in message.parts] + [message.timestamp]
    return next((stamp.isoformat() for stamp in stamps if stamp is not None), "")


def dump(message: ModelMessage) -> str:
    """Return a message as JSON text."""
    return ModelMessagesTypeAdapter.dump_json([message])[1:-1].decode()


def load(text: str) -> ModelMessage:
    """Return the message of a JSON text that `dump` wrote.

    Raises:
        pydantic.ValidationError: the text is not a message.
    """
    [message] = ModelMessagesTypeAdapter.validate_json(f"[{text}]")
    return message

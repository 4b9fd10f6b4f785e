"""Histories: what of a conversation a model is sent, and how its messages are kept.

A provider refuses a history that starts in the middle of a turn, or where a tool call and its result are not a pair.
What is stored may be both: turns fail, and windows cut. `window` is the one way from the stored to the sent.
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
"""Where a message's metadata keeps the id that frames and snapshots show it under; providers never see it."""

TRUNCATED = "truncated"
"""Where the metadata of a response says why its text ends before the model was done; a `Truncation`."""

_NAMELESS = UUID("7c7e1e0c-4b0e-5d0c-9a55-0d6b4f1f2a10")


def user_turn(content: str, message_id: UUID) -> ModelRequest:
    """Return what a person said as a message."""
    return ModelRequest(parts=[UserPromptPart(content=plain(content))], metadata={MESSAGE_ID: str(message_id)})


def window(messages: Sequence[ModelMessage], limit: int) -> list[ModelMessage]:
    """Return the end of a conversation in a form that every provider accepts.

    Args:
        messages: the conversation, ending with what the person said now.
        limit: how many messages to send at most; the turn of now is sent whole even if it is longer.

    Raises:
        ValueError: nobody said anything in it.
    """
    sendable = [message for message in messages if _says_something(message)]
    turns = [index for index, message in enumerate(sendable) if _is_user_turn(message)]
    if not turns:
        msg = "a history needs at least one message of a person"
        raise ValueError(msg)
    start = next((index for index in turns if index >= len(sendable) - limit), turns[-1])
    return repair_messages(list(_answering(sendable[start:])))


def _answering(messages: Iterable[ModelMessage]) -> Iterator[ModelMessage]:
    """Leave out each tool result that answers no open call of the response right before it.

    `repair_messages` adds results that are missing, but lets pass those that came twice or too late.
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


def _says_something(message: ModelMessage) -> bool:
    """Tell a message with content from an empty one, which providers refuse."""
    if isinstance(message, ModelRequest):
        return bool(message.parts)
    return bool(message.tool_calls or text_of(message))


def text_of(response: ModelResponse) -> str:
    """Return exactly what the frames of this response concatenate to."""
    return "".join(part.content for part in response.parts if isinstance(part, TextPart))


def truncation_of(response: ModelResponse) -> Truncation | None:
    """Return why a response ends before the model was done, if it does."""
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
    """Replace the two things that neither JSON nor Postgres can carry: NUL, and halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode(errors="replace").decode()
    return text.replace("\0", "\ufffd")


def settled(response: ModelResponse, earlier: Iterable[ModelMessage]) -> ModelResponse:
    """Return a response as it is journaled: plain text, and tool calls under ids that nothing earlier has.

    Some servers number the calls of each response from zero, and the journal must never take one for another.
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
    """Return the id a message is shown under: its own, or one that follows from its time."""
    own = (message.metadata or {}).get(MESSAGE_ID)
    return str(own or uuid5(_NAMELESS, f"{message.kind} {_time(message)}"))


def _time(message: ModelMessage) -> str:
    stamps = [getattr(part, "timestamp", None) for part in message.parts] + [message.timestamp]
    return next((stamp.isoformat() for stamp in stamps if stamp is not None), "")


def dump(message: ModelMessage) -> str:
    """Return a message as JSON text."""
    return ModelMessagesTypeAdapter.dump_json([message])[1:-1].decode()


def load(text: str) -> ModelMessage:
    """Read what `dump` wrote.

    Raises:
        pydantic.ValidationError: it is not a message.
    """
    [message] = ModelMessagesTypeAdapter.validate_json(f"[{text}]")
    return message

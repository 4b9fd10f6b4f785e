"""Transcripts: a history as AG-UI messages, which is how clients are told what remains after a restart."""

from collections.abc import Mapping, Sequence

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolReturnPart, UserPromptPart

from agent_service.domain.history import MESSAGE_ID, message_id, text_of

type Shown = Mapping[str, object]


def transcript(history: Sequence[ModelMessage]) -> list[Shown]:
    """Return AG-UI messages (`id`, `role`, `content`, …) in the order of the history."""
    return [shown for message in history for shown in _shown(message)]


def result_id(part: ToolReturnPart) -> str:
    """Return the id under which a tool's result is shown."""
    metadata = part.metadata
    return str(metadata[MESSAGE_ID]) if isinstance(metadata, Mapping) and MESSAGE_ID in metadata else part.tool_call_id


def _shown(message: ModelMessage) -> list[Shown]:
    if isinstance(message, ModelRequest):
        return [shown for part in message.parts if (shown := _asked(message, part)) is not None]
    return [_answered(message)]


def _asked(message: ModelRequest, part: object) -> Shown | None:
    if isinstance(part, UserPromptPart):
        content = part.content if isinstance(part.content, str) else ""
        return {"id": message_id(message), "role": "user", "content": content}
    if isinstance(part, ToolReturnPart):
        return {
            "id": result_id(part),
            "role": "tool",
            "content": part.model_response_str(wrap_if_error=False),
            "toolCallId": part.tool_call_id,
        }
    return None


def _answered(response: ModelResponse) -> Shown:
    shown: dict[str, object] = {"id": message_id(response), "role": "assistant"}
    if text := text_of(response):
        shown["content"] = text
    if calls := response.tool_calls:
        shown["toolCalls"] = [
            {
                "id": call.tool_call_id,
                "type": "function",
                "function": {"name": call.tool_name, "arguments": call.args_as_json_str()},
            }
            for call in calls
        ]
    return shown

"""Transcripts: a history as AG-UI messages, which clients receive when a run restarts."""

from collections.abc import Mapping, Sequence

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolReturnPart, UserPromptPart

from agent_service.domain.history import MESSAGE_ID, message_id, text_of

type AguiMessage = Mapping[str, object]


def transcript(history: Sequence[ModelMessage]) -> list[AguiMessage]:
    """Return AG-UI messages (`id`, `role`, `content`, …) in the order of the history."""
    return [agui for message in history for agui in _messages_of(message)]


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
        return {
            "id": result_id(part),
            "role": "tool",
            "content": part.model_response_str(wrap_if_error=False),
            "toolCallId": part.tool_call_id,
        }
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

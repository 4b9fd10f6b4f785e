from uuid import UUID

from ag_ui.core import MessagesSnapshotEvent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart

from agent_service.domain.history import MESSAGE_ID, dump, load, message_id, user_turn
from agent_service.domain.transcript import transcript

ASKED = UUID("01a1fe31-1813-75a8-9fa6-7e6db471c9cb")
HISTORY: list[ModelMessage] = [
    user_turn("What is 6 * 7?", ASKED),
    ModelResponse(
        parts=[
            TextPart(content="Let me see. "),
            ToolCallPart(tool_name="calculator", args={"expression": "6*7"}, tool_call_id="c1"),
        ],
        metadata={MESSAGE_ID: "m1"},
    ),
    ModelRequest(
        parts=[ToolReturnPart(tool_name="calculator", content="42", tool_call_id="c1", metadata={MESSAGE_ID: "r1"})]
    ),
    ModelResponse(parts=[TextPart(content="42.")], metadata={MESSAGE_ID: "m2"}),
]


def test_a_history_is_shown_as_ag_ui_messages() -> None:
    assert transcript(HISTORY) == [
        {"id": str(ASKED), "role": "user", "content": "What is 6 * 7?"},
        {
            "id": "m1",
            "role": "assistant",
            "content": "Let me see. ",
            "toolCalls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "calculator", "arguments": '{"expression":"6*7"}'},
                }
            ],
        },
        {"id": "r1", "role": "tool", "content": "42", "toolCallId": "c1"},
        {"id": "m2", "role": "assistant", "content": "42."},
    ]


def test_ag_uis_own_types_accept_it() -> None:
    event = MessagesSnapshotEvent.model_validate({"type": "MESSAGES_SNAPSHOT", "messages": transcript(HISTORY)})

    assert [message.role for message in event.messages] == ["user", "assistant", "tool", "assistant"]


def test_a_message_without_an_id_keeps_the_one_it_is_given_through_storage() -> None:
    message = ModelResponse(parts=[TextPart(content="old")])

    assert message_id(load(dump(message))) == message_id(message)
    assert message_id(message) != message_id(ModelResponse(parts=[TextPart(content="old")]))

"""Any stored history is sent in a valid form: histories are generated, and judged by the rules of OpenAI's API."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.usage import RequestUsage

from agent_service.domain.history import dump, load, plain, sanitized, text_of, usage_of, user_turn, window
from shared_models.ids import new_id

call_ids = st.sampled_from(["a", "b", "c", "d"])
texts = st.text(min_size=1, max_size=8)
prompts = st.builds(lambda text: ModelRequest(parts=[UserPromptPart(content=text)]), texts)
returns = st.lists(call_ids, max_size=3).map(
    lambda ids: ModelRequest(parts=[ToolReturnPart(tool_name="t", content="r", tool_call_id=i) for i in ids])
)
mixed = st.tuples(call_ids, texts).map(
    lambda both: ModelRequest(
        parts=[ToolReturnPart(tool_name="t", content="r", tool_call_id=both[0]), UserPromptPart(content=both[1])]
    )
)
answers = st.tuples(st.text(max_size=5), st.lists(call_ids, max_size=3, unique=True), st.booleans()).map(
    lambda made: ModelResponse(
        parts=[
            *([ThinkingPart(content="hm")] if made[2] else []),
            *([TextPart(content=made[0])] if made[0] else []),
            *(ToolCallPart(tool_name="t", args="{}", tool_call_id=i) for i in made[1]),
        ],
        model_name="m",
    )
)
histories = st.tuples(st.lists(st.one_of(prompts, returns, mixed, answers), max_size=25), prompts).map(
    lambda both: [*both[0], both[1]]
)


def faults_of(messages: Sequence[ModelMessage]) -> list[str]:
    """Return the faults for which a provider would refuse a history, found without the code under test."""
    first = messages[0]
    spoken = isinstance(first, ModelRequest) and any(isinstance(part, UserPromptPart) for part in first.parts)
    faults = [] if spoken else ["does not start with what a person said"]
    waiting: list[str] = []
    for message in messages:
        if isinstance(message, ModelRequest):
            faults.extend(faults_of_request(message, waiting))
            waiting = []
            continue
        faults.extend(f"call {call} has no result" for call in waiting)
        waiting = [call.tool_call_id for call in message.tool_calls]
        if not waiting and not text_of(message):
            faults.append("an empty response")
    return [*faults, *(f"call {call} has no result" for call in waiting)]


def faults_of_request(request: ModelRequest, calls: Sequence[str]) -> list[str]:
    faults: list[str] = []
    waiting = list(calls)
    for part in request.parts:
        if not isinstance(part, ToolReturnPart):
            faults.extend(f"something comes between call {call} and its result" for call in waiting)
        elif part.tool_call_id in waiting:
            waiting.remove(part.tool_call_id)
        else:
            faults.append(f"result {part.tool_call_id} has no call")
    return [*faults, *(f"call {call} has no result" for call in waiting)]


@given(histories, st.integers(min_value=1, max_value=12))
def test_any_history_is_sent_in_a_form_that_providers_accept(history: list[ModelMessage], limit: int) -> None:
    sent = window(history, limit)

    assert faults_of(sent) == []


@given(histories, st.integers(min_value=1, max_value=12))
def test_last_message_of_the_person_is_always_sent(history: list[ModelMessage], limit: int) -> None:
    asked = history[-1].parts[-1]

    assert window(history, limit)[-1].parts[-1] == asked


@given(histories, st.integers(min_value=1, max_value=12))
def test_valid_history_is_sent_unchanged(history: list[ModelMessage], limit: int) -> None:
    once = window(history, limit)

    assert window(once, len(once)) == once


def conversation(turns: int) -> list[ModelMessage]:
    messages: list[ModelMessage] = []
    for number in range(turns):
        messages += [
            user_turn(f"question {number}", new_id()),
            ModelResponse(parts=[ToolCallPart(tool_name="t", args={}, tool_call_id=f"c{number}")]),
            ModelRequest(parts=[ToolReturnPart(tool_name="t", content="r", tool_call_id=f"c{number}")]),
            ModelResponse(parts=[TextPart(content=f"answer {number}")]),
        ]
    return [*messages, user_turn("now", new_id())]


@pytest.mark.parametrize(("limit", "sent"), [(1, 1), (2, 1), (4, 1), (5, 5), (8, 5), (9, 9), (1000, 41)])
def test_a_window_holds_whole_turns_up_to_its_limit(limit: int, sent: int) -> None:
    assert len(window(conversation(10), limit)) == sent


def test_history_without_a_message_of_a_person_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one message of a person"):
        window([ModelResponse(parts=[TextPart(content="hello?")])], 5)


@given(answers)
def test_a_message_comes_back_from_json_as_it_was(message: ModelMessage) -> None:
    assert load(dump(message)) == message


@given(st.text() | st.just("a\0b") | st.just("half \ud83d of a pair"))
def test_plain_text_can_be_stored_anywhere(text: str) -> None:
    stored = plain(text)

    assert "\0" not in stored
    assert stored.encode().decode() == stored
    assert len(stored) == len(text)


def test_calls_that_a_server_numbers_from_zero_get_ids_of_their_own() -> None:
    first = sanitized(ModelResponse(parts=[ToolCallPart(tool_name="t", args="{}", tool_call_id="0")]), [])
    twice = ModelResponse(parts=[ToolCallPart(tool_name="t", args="{}", tool_call_id="0") for _ in range(2)])

    second = sanitized(twice, [first])

    ids = [call.tool_call_id for call in (*first.tool_calls, *second.tool_calls)]
    assert ids[0] == "0"
    assert len(set(ids)) == 3


def test_usage_is_summed_over_the_responses() -> None:
    one = ModelResponse(parts=[TextPart(content="x")], usage=RequestUsage(input_tokens=3, output_tokens=4))

    usage = usage_of([user_turn("hi", UUID(int=7)), one, one])

    assert (usage.input_tokens, usage.output_tokens, usage.model_calls) == (6, 8, 2)

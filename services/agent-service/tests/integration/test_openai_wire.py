"""What servers of OpenAI's protocol send on their bad days, byte for byte, through the real SDK.

Faked: the server (`tests.simulators.raw_server`), the journal and the frames' Redis. Nothing of ours.
"""

import json
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import pytest
from pydantic import SecretStr
from pydantic_ai.messages import ModelResponse

from agent_service.adapters import wire
from agent_service.adapters.models import ModelChain, RetryPolicy
from agent_service.adapters.providers import Providers, ProviderSettings
from agent_service.adapters.replies import MAX_ANSWER, size_of
from agent_service.adapters.tools import Toolbox
from agent_service.domain.history import dump, text_of, truncation_of, user_turn
from agent_service.errors import (
    ContextTooLong,
    ModelCut,
    ModelNotFound,
    ModelRefused,
    NoAnswer,
    OutOfTokens,
    RequestNotTaken,
    RunFailed,
)
from agent_service.usecases.run_agent import Answered, run_agent
from shared_models.agents import Agent, AgentLimits, AgentSpec, Dialect, Metadata, ModelRef
from shared_models.ids import new_id
from shared_models.requests import Truncation
from tests.simulators.raw_server import CUT, DONE, HELD, Answer, Json, RawServer, Step, delta, events, refusal, said
from tests.simulators.runs import FrameLog, MemoryJournal

QUICK = RetryPolicy(first_pause=0.01)
HELLO = said("Hello", " there")


def chain(providers: Providers, *names: str, **settings: object) -> ModelChain:
    refs = [ModelRef.model_validate({"provider": "openai", "name": name, **settings}) for name in names]
    spec = AgentSpec(model=refs[0], fallbacks=tuple(refs[1:]))
    agent = Agent(api_version="flotilla/v1", kind="Agent", metadata=Metadata(name="a"), spec=spec)
    return providers.chain(agent, QUICK)


class Desk:
    """Asks a raw server, with the real provider; `log` is what a person saw of it."""

    def __init__(self, server: RawServer, providers: Providers) -> None:
        self.server = server
        self.providers = providers
        self.log = FrameLog()

    async def ask(self, text: str = "hello", *names: str, **settings: object) -> ModelResponse:
        models = chain(self.providers, *(names or ("raw",)), **settings)
        return await models.stream_reply([user_turn(text, new_id())], (), self.log)

    async def run(self, **settings: object) -> Answered:
        return await run_agent(
            [user_turn("hello", new_id())],
            Toolbox().pick(["calculator", "current-time"]),
            AgentLimits(),
            models=chain(self.providers, "raw", **settings),
            journal=MemoryJournal(),
            frames=self.log,
        )


type Opened = Callable[..., Awaitable[Desk]]


@pytest.fixture
async def opened() -> AsyncGenerator[Opened]:
    async with AsyncExitStack() as stack:

        async def open_desk(answer: Callable[[Json], Answer] | Answer, content_type: str = "text/event-stream") -> Desk:
            answering = answer if callable(answer) else lambda _: answer
            server = await stack.enter_async_context(RawServer(answering, content_type))
            providers = Providers(ProviderSettings(SecretStr("sk-test-1234567890"), server.url), {})
            stack.push_async_callback(providers.close)
            return Desk(server, providers)

        yield open_desk


def called(*pieces: Json, finish: str = "tool_calls") -> Callable[[Json], Answer]:
    """Answer with tool calls in these pieces, and then with their results."""

    def answer(body: Json) -> Answer:
        messages = body["messages"]
        assert isinstance(messages, list)
        results = [message["content"] for message in messages if message["role"] == "tool"]
        if results:
            return [*said(" | ".join(results)), DONE]
        return [*events(*(delta({"tool_calls": [piece]}) for piece in pieces), delta({}, finish)), DONE]

    return answer


def piece(arguments: object, /, name: str | None = "calculator", **more: object) -> Json:
    function = {"name": name, "arguments": arguments}
    return {
        "type": "function",
        "function": {key: value for key, value in function.items() if value is not None},
        **more,
    }


@pytest.mark.parametrize(
    "reason", ["error", "abort", "insufficient_system_resource", "network_error", "no word at all"]
)
async def test_answer_whose_finish_reason_does_not_say_whole_is_broken_off(opened: Opened, reason: str) -> None:
    desk = await opened([*said("The three steps are: first,", finish=reason), DONE])

    with pytest.raises(ModelCut, match="the finish reason"):
        await desk.ask()

    assert len(desk.server.bodies) == 3
    fallback = await opened(lambda body: [*said("Hello", finish="stop" if body["model"] == "b" else reason), DONE])
    assert text_of(await fallback.ask("hello", "a", "b")) == "Hello"


@pytest.mark.parametrize("reason", ["stop", "eos", "end_turn", "COMPLETE", "tool_calls"])
async def test_answer_with_a_finish_reason_of_any_server_that_says_whole_is_whole(opened: Opened, reason: str) -> None:
    desk = await opened([*said("Hello", finish=reason), DONE])
    reply = await desk.ask()
    assert (text_of(reply), truncation_of(reply)) == ("Hello", None)


@pytest.mark.parametrize("reason", ["length", "max_tokens", "model_length"])
async def test_answer_cut_by_the_token_limit_is_kept_with_a_mark(opened: Opened, reason: str) -> None:
    desk = await opened([*said("One, two,", finish=reason), DONE])
    answered = await desk.run()
    assert (answered.text, answered.truncated) == ("One, two,", Truncation.LENGTH)


async def test_tool_call_that_was_cut_is_not_carried_out(opened: Opened) -> None:
    desk = await opened(called(piece("", "current-time", index=0, id="c1"), finish="length"))
    with pytest.raises(OutOfTokens):
        await desk.run()
    assert "TOOL_CALL_START" not in desk.log.types
    assert len(desk.server.bodies) == 1


@pytest.mark.parametrize("data", [b"null", b"[]", b'"ping"', b"7", b"{}", b'{"choices": null}', b'{"choices": [null]}'])
async def test_data_that_carries_no_piece_is_passed_over(opened: Opened, data: bytes) -> None:
    desk = await opened([*HELLO[:1], *events(data), *HELLO[1:], DONE])
    assert text_of(await desk.ask()) == "Hello there"


@pytest.mark.parametrize(
    "data",
    [
        *(b'{"choices": {"0": {"delta": {"content": "x"}}}}', b'{"choices": ["x"]}', b'{"choices": [{"delta": "x"}]}'),
        *(b'{"choices": [{"delta": {"content": 7}}]}', b'{"choices": [{"delta": {"tool_calls": "x"}}]}'),
        *(b'{"choices": [{"delta": {"tool_calls": ["x"]}}]}', b'{"id": "x", "choi', b"[" * 100_000),
        b'{"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": "{}"}}]}}]}',
    ],
)
async def test_piece_that_cannot_be_read_breaks_the_answer_and_the_next_model_answers(
    opened: Opened, data: bytes
) -> None:
    desk = await opened(lambda body: [*(HELLO if body["model"] == "b" else [*events(data), *HELLO]), DONE])
    assert text_of(await desk.ask("hello", "a", "b")) == "Hello there"
    with pytest.raises(ModelCut, match="the stream could not be read"):
        await desk.ask("hello", "a")


@pytest.mark.parametrize(
    "more", [{"created": 10**18}, {"created": "now"}, {"id": 7}, {"model": None}, {"usage": "none"}, {"usage": [1]}]
)
async def test_odd_description_of_an_answer_does_not_harm_it(opened: Opened, more: Json) -> None:
    desk = await opened([*events({**delta({"content": "Hello"}), **more}, delta({}, "stop")), DONE])
    assert text_of(await desk.ask()) == "Hello"


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(part, index=0, id="c1") for part in ('{"expr', 'ession":', '"1+1"}')],
        [piece('{"expr', "calcu", index=0, id="c1"), piece('ession":"1+1"}', "lator", index=0)],
        [piece('{"expression":"1+1"}', id="c1")],
        [piece('{"expr', id="c1"), piece('ession":"1+1"}', None)],
        [piece({"expression": "1+1"}, index=0)],
        [piece("", index=0, id="c1"), piece('{"expression":"1+1"}', "", index=0, id="")],
        [{}, piece('{"expression":"1+1"}', index="0", id="c1"), {"index": 0, "function": None}],
    ],
)
async def test_tool_call_is_joined_as_the_protocol_says(opened: Opened, pieces: Sequence[Json]) -> None:
    desk = await opened(called(*pieces))
    assert (await desk.run()).text == "2"
    assert [fields["toolCallName"] for _, type_, fields in desk.log.frames if type_ == "TOOL_CALL_START"] == [
        "calculator"
    ]


@pytest.mark.parametrize(
    "numbering",
    [
        ({"index": 0, "id": "a"}, {"index": 1, "id": "b"}),
        ({"index": 0, "id": "a"}, {"index": 0, "id": "b"}),
        ({"id": "a"}, {"id": "b"}),
        ({}, {}),
        ({"index": 0}, {"index": 1}),
    ],
)
async def test_two_calls_stay_two_however_a_server_numbers_them(opened: Opened, numbering: Sequence[Json]) -> None:
    first, second = numbering
    desk = await opened(called({**piece('{"expression":"1+1"}'), **first}, {**piece('{"expression":"2+2"}'), **second}))
    assert (await desk.run()).text == "2 | 4"


async def test_counts_that_come_in_each_chunk_are_not_added_up(opened: Opened) -> None:
    counts = [{"prompt_tokens": 9, "completion_tokens": number} for number in (1, 2, 3)]
    chunks = [delta({"content": "x"}, usage=count) for count in counts]
    desk = await opened(
        [*events(*chunks, delta({}, "stop", usage={"prompt_tokens": -1, "completion_tokens": "n"})), DONE]
    )
    reply = await desk.ask()
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (9, 3)


@pytest.mark.parametrize(
    "beat",
    [b": keep-alive\n\n", events(delta({"content": ""}))[0], events(delta({"reasoning_details": [{}]}))[0], b"\n"],
)
async def test_bytes_of_any_kind_are_a_sign_of_life(opened: Opened, beat: Step) -> None:
    desk = await opened([*[beat, 0.3] * 8, *HELLO, DONE])
    assert text_of(await desk.ask(request_seconds=1.5)) == "Hello there"


async def test_nothing_that_postgres_json_or_a_terminal_cannot_hold_comes_through(opened: Opened) -> None:
    text = events(
        b'{"id":"x\\u0000y","model":"m\\u0000","choices":[{"delta":{"content":"a\\u0000\\ud800b\\u001b]0;c"}}]}'
    )
    desk = await opened([*text, *said("", finish="stop"), DONE])
    reply = await desk.ask()
    assert text_of(reply) == desk.log.texts()[0] == "a\ufffd\ufffdb\ufffd]0;c"
    assert "\\u0000" not in dump(reply)

    call = piece({"expression": "1+\x001", "half": "\ud800"}, "calc\0ulator", index=0, id="call\0a")
    desk = await opened(called(call, piece('{"expression":"1+1"}', index=1, id="x" * 4000)))
    answered = await desk.run()
    stored = "".join(dump(message) for message in answered.messages)
    assert "There is no tool named 'calc_ulator'" in answered.text
    assert "\\u0000" not in stored.replace("\\\\", "")
    assert "x" * 300 not in stored


async def test_character_that_comes_in_two_halves_is_one(opened: Opened) -> None:
    halves = [b'{"choices":[{"delta":{"content":"%s"}}]}' % half for half in (b"a\\ud83d", b"\\ude00b")]
    desk = await opened([*events(*halves), *said("", finish="stop"), DONE])
    assert text_of(await desk.ask()) == "a\U0001f600b" == desk.log.texts()[0]


@pytest.mark.parametrize("ending", [[HELD], [CUT], [], [b": bye\n\n", HELD]])
async def test_answer_with_its_finish_reason_needs_no_goodbye(
    opened: Opened,
    ending: list[Step],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "TAIL_SECONDS", 0.2)
    desk = await opened([*HELLO, *ending])
    assert text_of(await desk.ask()) == "Hello there"
    assert len(desk.server.bodies) == 1


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\r"])
async def test_server_sent_events_are_read_by_the_standard(opened: Opened, separator: bytes) -> None:
    lines = '\ufeff: hi|data:{|data: "choices":|data: [{"delta":{"content":"H\u00e9llo"}}]}|id: 7||retry: 1||'.encode()
    stream = lines.replace(b"|", separator) + b"".join(
        step for step in said("", finish="stop") if isinstance(step, bytes)
    )
    desk = await opened([stream[at : at + 1] for at in range(len(stream))])
    assert text_of(await desk.ask()) == "Héllo"


async def test_answer_that_comes_in_one_piece_is_an_answer(opened: Opened) -> None:
    whole = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    desk = await opened([json.dumps(whole).encode()], "application/json")
    reply = await desk.ask()
    assert (text_of(reply), reply.usage.output_tokens) == ("Hello", 1)


async def test_answer_larger_than_an_event_is_cut_at_the_bound_while_it_streams(opened: Opened) -> None:
    desk = await opened([*said(*["\u20ac\n" * 1000] * 60), HELD])
    answered = await desk.run()
    assert answered.truncated is Truncation.SIZE
    assert MAX_ANSWER - 4 < size_of(answered.text) <= MAX_ANSWER
    assert desk.log.texts() == [answered.text]


LARGE = [
    pytest.param([b'{"choices":"', *[b"x" * (1 << 20)] * 32, b'"}'], "application/json", id="in one piece"),
    pytest.param([b"data: ", *[b"x" * (1 << 20)] * 32, b"\n\n"], "text/event-stream", id="in one event"),
    pytest.param([b"data: xy\n" * (1 << 16)] * 32, "text/event-stream", id="in many lines"),
]


@pytest.mark.parametrize(("answer", "content_type"), LARGE)
async def test_huge_answer_is_broken_off_and_costs_little_memory(
    opened: Opened, answer: Answer, content_type: str
) -> None:
    desk = await opened(answer, content_type)
    tracemalloc.start()
    try:
        with pytest.raises(RunFailed):
            await desk.ask()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 96 << 20


@pytest.mark.parametrize("words", [("\n\n", "  "), ("\u200b", "\ufeff"), ("\0",), ()])
async def test_answer_that_nobody_can_see_is_none(opened: Opened, words: Sequence[str]) -> None:
    desk = await opened([*said(*words), DONE])
    with pytest.raises(NoAnswer):
        await desk.ask()
    assert len(desk.server.bodies) == 3
    assert desk.log.texts() == []


def refuses(*members: str) -> Callable[[Json], Answer]:
    def answer(body: Json) -> Answer:
        for member in members:
            if member in body:
                fault = {"type": "extra_forbidden", "loc": ["body", member]}
                return refusal("422 Unprocessable Entity", {"object": "error", "message": "No.", "detail": [fault]})
        return [*HELLO, DONE]

    return answer


async def test_server_that_knows_less_is_found_out_once_and_asked_in_its_words(opened: Opened) -> None:
    desk = await opened(refuses("max_completion_tokens", "stream_options", "temperature"))
    for _ in range(2):
        assert text_of(await desk.ask(max_tokens=12, temperature=0.5)) == "Hello there"
    assert len(desk.server.bodies) == 5
    assert desk.server.bodies[-1]["max_tokens"] == 12
    assert not {"stream_options", "max_completion_tokens", "temperature"} & set(desk.server.bodies[-1])


async def test_dialect_of_a_model_is_kept_from_the_first_call(opened: Opened) -> None:
    desk = await opened(refuses("max_completion_tokens", "stream_options"))
    dialect = Dialect(rename={"max_completion_tokens": "max_tokens"}, omit=("stream_options",))
    assert text_of(await desk.ask(max_tokens=12, dialect=dialect)) == "Hello there"
    [body] = desk.server.bodies
    assert body["max_tokens"] == 12


async def test_refusal_of_what_cannot_be_left_out_stays_one(opened: Opened) -> None:
    desk = await opened(refuses("messages"))
    with pytest.raises(RequestNotTaken, match="status 422"):
        await desk.ask()
    assert len(desk.server.bodies) == 1


@pytest.mark.parametrize(
    ("status", "error", "outcome"),
    [
        ("400 Bad Request", {"message": "No.", "code": "context_length_exceeded"}, ContextTooLong),
        ("400 Bad Request", {"message": "prompt is too long: 9 tokens > 8 maximum"}, ContextTooLong),
        ("400 Bad Request", {"message": "the request exceeds the available context size"}, ContextTooLong),
        ("400 Bad Request", {"message": "No.", "code": "content_policy_violation"}, ModelRefused),
        ("404 Not Found", {"message": "No."}, ModelNotFound),
    ],
)
async def test_refusal_is_told_as_what_it_is(
    opened: Opened, status: str, error: Json, outcome: type[RunFailed]
) -> None:
    desk = await opened(refusal(status, {"error": error}))
    with pytest.raises(outcome):
        await desk.ask()
    assert len(desk.server.bodies) == 1


async def test_address_of_a_web_page_or_without_its_version_is_told_to_the_operator(opened: Opened) -> None:
    page = await opened([b"<html>Hello</html>"], "text/html")
    with pytest.raises(ModelNotFound, match="a web page came"):
        await page.ask()
    bare = await opened(refusal("404 Not Found", {"detail": "Not Found"}))
    address = bare.server.url.removesuffix("/v1")
    bare.providers = Providers(ProviderSettings(SecretStr("sk-test"), address), {})
    with pytest.raises(
        ModelNotFound, match=r"at 127.0.0.1:\d+: status 404; is /v1 missing at the end of the base URL\?"
    ):
        await bare.ask()
    await bare.providers.close()


async def test_message_of_a_provider_reaches_the_log_without_what_was_said_and_without_keys(opened: Opened) -> None:
    def answer(body: Json) -> Answer:
        asked = body["messages"][-1]["content"]  # type: ignore[index]  # JSON of our own making
        message = f"Unsupported value for 'top_p', near {asked!r}, key sk-live-0123456789abcdef"
        return refusal("400 Bad Request", {"error": {"message": message, "code": "bad_value"}})

    desk = await opened(answer)
    with pytest.raises(RequestNotTaken) as failed:
        await desk.ask("Ada is ill")
    assert "status 400 bad_value (Unsupported value for 'top_p', near" in failed.value.detail
    assert not [word for word in ("Ada", "ill", "sk-live", "0123456789") if word in failed.value.detail]

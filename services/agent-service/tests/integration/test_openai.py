"""The whole way to an OpenAI-shaped provider and back: the real SDK, a real socket, every fault.

Faked: the provider (`tests.simulators.openai`), the journal and the frames' Redis. Nothing of ours.
"""

import asyncio
import logging
import random
import time
import traceback
from collections.abc import AsyncIterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart

from agent_service.adapters.models import ModelChain, RetryPolicy
from agent_service.adapters.providers import Providers, ProviderSettings
from agent_service.adapters.tools import Toolbox
from agent_service.domain.history import text_of, user_turn, window
from agent_service.domain.transcript import transcript
from agent_service.errors import (
    ContextTooLong,
    KeyRefused,
    ModelBusy,
    ModelCut,
    ModelNotFound,
    ModelRefused,
    ModelUnavailable,
    ModelUnreachable,
    NoAnswer,
    OutOfTokens,
    QuotaSpent,
    RequestNotTaken,
    RunFailed,
)
from agent_service.usecases.run_agent import run_agent
from shared_models.agents import Agent, AgentLimits, AgentSpec, Metadata, ModelRef, Prompts
from shared_models.ids import new_id
from tests.simulators.openai import BAD_KEY, Simulator
from tests.simulators.openai_wire import Behaviour, ToolUse
from tests.simulators.runs import FrameLog, MemoryJournal

QUICK = RetryPolicy(first_pause=0.01, max_pause=5.0)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
async def providers(simulator: Simulator) -> AsyncIterator[Providers]:
    providers = Providers(ProviderSettings(SecretStr("sk-test-1234567890"), simulator.url), {})
    yield providers
    await providers.close()


def models(providers: Providers, *names: str, seconds: float = 10.0, retry_policy: RetryPolicy = QUICK) -> ModelChain:
    refs = [ModelRef(provider="openai", name=name, request_seconds=seconds, temperature=0.5) for name in names]
    spec = AgentSpec(model=refs[0], fallbacks=tuple(refs[1:]), prompts=Prompts(system="Be brief."))
    agent = Agent(api_version="flotilla/v1", kind="Agent", metadata=Metadata(name="a"), spec=spec)
    return providers.chain(agent, retry_policy)


def asked(text: str = "hello there my friend") -> list[ModelMessage]:
    return [user_turn(text, new_id())]


def idle_seconds(fault: str) -> float:
    """Seconds until silence counts: short where it is what the test waits for, else longer than any hiccup here."""
    return 1.0 if "stall" in fault or "start" in fault else 30.0


async def test_an_answer_streams_with_its_usage(simulator: Simulator, providers: Providers) -> None:
    log = FrameLog()

    reply = await models(providers, "sim:words=50").stream_reply(asked(), (), log)

    assert text_of(reply) == " ".join(f"w{number}" for number in range(50))
    assert log.texts() == [text_of(reply)]
    assert len(log.frames) == 52
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (6, 50)
    [call] = simulator.calls
    assert call.messages[0] == {"role": "system", "content": "Be brief."}
    assert call.body["temperature"] == 0.5


async def test_text_is_shown_as_it_comes(simulator: Simulator, providers: Providers) -> None:
    log = FrameLog()
    simulator.behave("sim", Behaviour(text="one two three", stall_after=2))

    work = asyncio.ensure_future(models(providers, "sim").stream_reply(asked(), (), log))
    async with asyncio.timeout(5):
        while log.texts() != ["one two"]:  # noqa: ASYNC110 - the loop never awaits its frames, so nothing signals
            await asyncio.sleep(0.01)
    work.cancel()

    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_tool_call_goes_there_and_its_result_back(simulator: Simulator, providers: Providers) -> None:
    use = ToolUse(name="calculator", arguments='{"expression": "6 * 7"}')
    simulator.behave("sim", Behaviour(text="Let me see. ", calls=(use, use)), Behaviour(text="It is 42."))
    log = FrameLog()

    answered = await run_agent(
        asked("What is 6 * 7?"),
        Toolbox().pick(["calculator", "current-time"]),
        AgentLimits(),
        models=models(providers, "sim"),
        journal=MemoryJournal(),
        frames=log,
    )

    assert answered.text == "It is 42."
    assert answered.usage.model_calls == 2
    first, second = simulator.calls
    assert first.tools == ["calculator", "current-time"]
    assert [message["role"] for message in second.messages] == ["system", "user", "assistant", "tool", "tool"]
    assert [message["content"] for message in second.messages[-2:]] == ["42", "42"]
    assert log.texts() == ["Let me see. ", "It is 42."]


@pytest.mark.parametrize(
    ("fault", "ending"),
    [
        ("status=500", (ModelUnavailable, 8, "status 500 server_error")),
        ("status=503", (ModelUnavailable, 8, "status 503 server_error")),
        ("status=429,retry_after_ms=1", (ModelBusy, 8, "status 429 rate_limit_exceeded")),
        ("status=429,code=insufficient_quota", (QuotaSpent, 1, "status 429 insufficient_quota")),
        ("status=400", (RequestNotTaken, 1, "status 400 server_error (Simulated.)")),
        ("status=400,code=content_policy_violation", (ModelRefused, 1, "status 400 content_policy_violation")),
        ("status=400,code=context_length_exceeded", (ContextTooLong, 1, "status 400 context_length_exceeded")),
        ("status=413", (ContextTooLong, 1, "status 413")),
        ("status=404,code=model_not_found", (ModelNotFound, 1, "status 404 model_not_found")),
        ("error_after=0", (ModelUnavailable, 8, "status 500 server_error")),
        ("error_after=2", (ModelCut, 3, "status 500 server_error")),
        ("reset_after=0", (ModelUnreachable, 8, "the connection failed in read")),
        ("reset_after=2,token_ms=20", (ModelCut, 3, "the connection failed in read")),
        ("malformed_after=0", (ModelCut, 3, "the stream could not be read")),
        ("malformed_after=2", (ModelCut, 3, "the stream could not be read")),
        ("cut_after=0", (ModelCut, 3, "the stream ended without a finish reason")),
        ("cut_after=2", (ModelCut, 3, "the stream ended without a finish reason")),
        ("stall_after=0", (ModelUnavailable, 3, "nothing came for too long")),
        ("stall_after=2", (ModelCut, 3, "nothing came for too long")),
        ("start_ms=60000", (ModelUnavailable, 3, "nothing came for too long")),
        ("finish=content_filter", (ModelRefused, 1, "content filter")),
        ("words=0", (NoAnswer, 3, "an empty reply")),
        ("finish=insufficient_system_resource", (ModelCut, 3, "the finish reason insufficient_system_resource")),
        ("finish=length,words=0", (OutOfTokens, 1, "its length limit came before an answer")),
    ],
)
async def test_a_fault_that_stays_ends_the_call_with_its_kind(
    simulator: Simulator, providers: Providers, fault: str, ending: tuple[type[RunFailed], int, str]
) -> None:
    log = FrameLog()
    kind, calls, says = ending

    with pytest.raises(kind) as ended:
        await models(providers, f"sim:{fault}", seconds=idle_seconds(fault)).stream_reply(asked(), (), log)

    assert says in ended.value.detail
    assert len(simulator.calls) == calls
    assert log.open == set()


@pytest.mark.parametrize(
    "fault",
    [
        *("status=500", "status=429,retry_after_ms=1", "error_after=0", "reset_after=0", "malformed_after=0"),
        *("cut_after=0", "cut_after=3", "reset_after=3,token_ms=5", "malformed_after=3", "error_after=3"),
        *("stall_after=0", "stall_after=3", "start_ms=60000"),
    ],
)
async def test_a_fault_that_passes_is_survived_with_the_whole_answer(
    simulator: Simulator, providers: Providers, fault: str
) -> None:
    log = FrameLog()

    reply = await models(providers, f"sim:{fault},times=1", seconds=idle_seconds(fault)).stream_reply(asked(), (), log)

    assert text_of(reply) == "You said: hello there my friend"
    assert log.texts() == [text_of(reply)]
    assert len(simulator.calls) == 2


@pytest.mark.parametrize("after", range(7))
async def test_a_cut_stream_is_never_taken_for_an_answer(
    simulator: Simulator, providers: Providers, after: int
) -> None:
    with pytest.raises(ModelCut):
        await models(providers, f"sim:cut_after={after}").stream_reply(asked(), (), FrameLog())

    assert [call.outcome for call in simulator.calls] == ["cut"] * 3
    assert [call.sent for call in simulator.calls] == [after] * 3


async def test_the_next_model_answers_when_one_breaks_off_in_mid_answer(
    simulator: Simulator, providers: Providers
) -> None:
    log = FrameLog()
    history = asked()

    reply = await models(providers, "sim:cut_after=3", "sim-b").stream_reply(history, (), log)

    assert [call.model for call in simulator.calls] == ["sim:cut_after=3", "sim-b"]
    assert reply.model_name == "sim-b"
    assert log.texts() == ["You said: hello there my friend"]
    taken_back = [fields for _, type_, fields in log.frames if type_ in {"CUSTOM", "MESSAGES_SNAPSHOT"}]
    reset, snapshot, retrying = taken_back
    assert retrying == {"name": "retrying", "value": {"reason": "model_cut"}}
    assert reset == {"name": "reset", "value": "0-0"}
    assert snapshot == {"messages": transcript(history)}
    starts = [fields["messageId"] for _, type_, fields in log.frames if type_ == "TEXT_MESSAGE_START"]
    assert len(set(starts)) == 2
    assert reply.metadata is not None
    assert reply.metadata["message_id"] == starts[1]


async def test_a_model_that_never_began_is_not_asked_again_after_the_others(
    simulator: Simulator, providers: Providers
) -> None:
    with pytest.raises(ModelCut, match=r"status 404.*without a finish reason"):
        await models(providers, "sim:status=404", "sim:cut_after=1").stream_reply(asked(), (), FrameLog())

    assert [call.outcome for call in simulator.calls] == ["404", "cut", "cut", "cut"]


async def test_a_pause_that_the_provider_asks_for_is_kept(simulator: Simulator, providers: Providers) -> None:
    await models(providers, "sim:status=429,retry_after=1,times=1").stream_reply(asked(), (), FrameLog())

    refused, done = simulator.calls
    assert refused.ended is not None
    assert 1.0 <= done.began - refused.ended < 3.0


async def test_a_pause_that_is_too_long_is_spent_with_another_model(simulator: Simulator, providers: Providers) -> None:
    began = time.monotonic()

    reply = await models(providers, "sim:status=429,retry_after=60", "sim-b").stream_reply(asked(), (), FrameLog())

    assert reply.model_name == "sim-b"
    assert len(simulator.calls) == 2
    assert time.monotonic() - began < 5


async def test_a_provider_that_is_not_there_is_told_apart_from_one_that_refuses() -> None:
    providers = Providers(ProviderSettings(SecretStr("sk-test"), "http://127.0.0.1:9/v1"), {})

    with pytest.raises(ModelUnreachable, match=r"openai:sim at 127.0.0.1:9: the connection failed in connect"):
        await models(providers, "sim").stream_reply(asked(), (), FrameLog())
    await providers.close()


async def test_nearly_all_answers_come_from_a_provider_in_trouble(simulator: Simulator, providers: Providers) -> None:
    dice = random.Random(7)
    faults = {
        Behaviour(status=429, retry_after_ms=5): 0.30,
        Behaviour(status=500): 0.10,
        Behaviour(stall_after=2): 0.02,
        Behaviour(cut_after=2): 0.03,
        Behaviour(malformed_after=2): 0.03,
        Behaviour(reset_after=0): 0.02,
        Behaviour(): 0.50,
    }
    room = asyncio.Semaphore(10)

    async def ask(number: int, log: FrameLog) -> ModelResponse:
        simulator.behave(f"sim-{number}", *dice.choices(list(faults), list(faults.values()), k=40))
        chain = models(providers, f"sim-{number}", seconds=3.0)
        async with room:
            return await chain.stream_reply(asked(), (), log)

    logs = [FrameLog() for _ in range(200)]
    replies = await asyncio.gather(*(ask(*run) for run in enumerate(logs)), return_exceptions=True)

    answered = [(reply, log) for reply, log in zip(replies, logs, strict=True) if isinstance(reply, ModelResponse)]
    assert all(isinstance(reply, ModelResponse | RunFailed) for reply in replies)
    assert all(log.texts() == [text_of(reply)] == ["You said: hello there my friend"] for reply, log in answered)
    assert len(answered) >= 0.99 * len(logs)


async def test_cancelling_closes_the_connection_at_once(simulator: Simulator, providers: Providers) -> None:
    log = FrameLog()
    work = asyncio.ensure_future(models(providers, "sim:words=100000,token_ms=5").stream_reply(asked(), (), log))
    async with asyncio.timeout(5):
        while len(log.frames) < 5:  # noqa: ASYNC110 - the loop never awaits its frames, so nothing signals
            await asyncio.sleep(0.01)

    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    cancelled = time.monotonic()
    async with asyncio.timeout(1):
        call = await simulator.ended(1)

    assert call.outcome == "disconnected"
    assert call.ended is not None
    assert call.ended - cancelled < 1.0
    assert log.open == set()


async def test_a_key_is_in_no_error_and_no_log(simulator: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    question = f"my secret {new_id()}"
    providers = Providers(ProviderSettings(SecretStr(BAD_KEY), simulator.url), {})

    with pytest.raises(KeyRefused, match="status 401 invalid_api_key") as ended:
        await models(providers, "sim").stream_reply(asked(question), (), FrameLog())
    await providers.close()

    told = "".join(traceback.format_exception(ended.value)) + caplog.text + repr(providers.__dict__)
    assert BAD_KEY not in told
    assert question not in told


@pytest.mark.parametrize("limit", range(1, 14))
async def test_a_real_provider_accepts_every_window(simulator: Simulator, providers: Providers, limit: int) -> None:
    history: list[ModelMessage] = []
    for number in range(3):
        call_id = f"c{number}"
        history += [
            *asked(f"question {number}"),
            ModelResponse(parts=[ToolCallPart(tool_name="t", args="{}", tool_call_id=call_id)]),
            ModelRequest(parts=[ToolReturnPart(tool_name="t", content="r", tool_call_id=call_id)]),
            ModelResponse(parts=[TextPart(content=f"answer {number}")]),
        ]
    unanswered = [*history[:-2], *asked("are you still there?")]

    for messages in ([*history, *asked("now")], [*unanswered, *asked("now")]):
        await models(providers, "sim").stream_reply(window(messages, limit), (), FrameLog())

    assert {call.outcome for call in simulator.calls} == {"done"}


async def test_each_call_of_a_model_is_one_span_without_content(simulator: Simulator, providers: Providers) -> None:
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    await models(providers, "sim:cut_after=1", "sim-b").stream_reply(asked("my secret question"), (), FrameLog())

    broken, whole = exporter.get_finished_spans()
    assert (broken.name, whole.name) == ("chat sim:cut_after=1", "chat sim-b")
    assert broken.attributes is not None
    assert broken.attributes["error.type"] == "model_cut"
    assert whole.attributes is not None
    assert whole.attributes["gen_ai.usage.output_tokens"] == 5
    assert "my secret question" not in broken.to_json() + whole.to_json()

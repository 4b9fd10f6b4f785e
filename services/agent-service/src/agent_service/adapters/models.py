"""Ask a model for a reply and show it as it comes: retries, fallbacks and broken streams end here.

`run_agent` calls `stream_reply` for each step. Only this layer retries (SDK retries are off). `adapters/wire` reads
the bytes below the SDK, and `adapters/replies` judges what the SDK made of them.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from opentelemetry.trace import Span, SpanKind, StatusCode, get_tracer
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import (
    InstructionPart,
    ModelMessage,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from agent_service import metrics
from agent_service.adapters.model_failures import FOREIGN, CallFailed, at_host, translate
from agent_service.adapters.replies import MAX_ANSWER, check_reply, cut, fitting, is_blank, printable, size_of
from agent_service.adapters.wire import CallContext, calling
from agent_service.domain.history import MESSAGE_ID, dump, text_of
from agent_service.domain.transcript import transcript
from agent_service.ports import Frames, Tool
from shared_models.agents import ModelRef
from shared_models.ids import new_id
from shared_models.requests import Truncation

_tracer = get_tracer("agent_service")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The number of calls of one model, and the pauses between them.

    Attributes:
        attempts: the calls that may fail before their first token; twice as many for the last model, because no other
            model is left.
        rounds: the calls that may break off after their first token, each after the other models.
        first_pause: the longest pause before the second attempt, in seconds; it doubles with each attempt, and the
            actual pause is random.
        max_pause: the longest pause in seconds; where a provider's Retry-After is longer, the next model is called.
    """

    attempts: int = 4
    rounds: int = 3
    first_pause: float = 1.0
    max_pause: float = 20.0


class ModelCandidate:
    """One model that may be tried, with the parameters that its agent sets."""

    def __init__(self, ref: ModelRef, model: Model) -> None:
        self.ref = ref
        self.model = model
        self.base_url = model.base_url or ""
        self.label = f"{ref.provider}:{ref.name}{at_host(self.base_url)}"
        self.settings = ModelSettings()
        if ref.temperature is not None:
            self.settings["temperature"] = ref.temperature
        if ref.max_tokens is not None:
            self.settings["max_tokens"] = ref.max_tokens


class ModelChain:
    """An agent's model and its fallbacks; implements `ports.Models`.

    Args:
        candidates: at least one, in the order in which they are tried.
        instructions: the text that precedes the conversation in each call.
        retry_policy: the retries of each candidate.
    """

    def __init__(
        self, candidates: Sequence[ModelCandidate], instructions: str = "", *, retry_policy: RetryPolicy | None = None
    ) -> None:
        self._candidates = tuple(candidates)
        self._instructions = instructions
        self._retry_policy = retry_policy or RetryPolicy()

    async def stream_reply(
        self, history: Sequence[ModelMessage], tools: Sequence[Tool], frames: Frames
    ) -> ModelResponse:
        """Return the first whole reply; see `ports.Models`.

        A model that failed before it began is not asked again. One whose stream broke off is, after the others: what it
        had shown is taken back first.
        """
        keep = frames.last
        parameters = _parameters(self._instructions, tools)
        given_up: set[ModelCandidate] = set()
        failures: list[CallFailed] = []
        message = _Message(frames)
        for candidate in self._candidates * self._retry_policy.rounds:
            if candidate in given_up:
                continue
            if message.shown:
                frames.void(keep, transcript(history))
                message = _Message(frames)
            if failures:
                _show_retry(frames, failures[-1])
            try:
                reply = await self._ask_with_retries(candidate, history, parameters, message, frames=frames)
                return replace(reply, metadata={**(reply.metadata or {}), MESSAGE_ID: str(message.id)})
            except CallFailed as failure:
                failures.append(failure)
                if failure.final:
                    break
                if not failure.broke:
                    given_up.add(candidate)
            finally:
                if message.shown:
                    frames.append("TEXT_MESSAGE_END", messageId=str(message.id))
        raise failures[-1].outcome("; ".join(dict.fromkeys(failure.detail for failure in failures)))

    async def _ask_with_retries(
        self,
        candidate: ModelCandidate,
        history: Sequence[ModelMessage],
        parameters: ModelRequestParameters,
        message: "_Message",
        *,
        frames: Frames,
    ) -> ModelResponse:
        """Ask one model, again where it failed before its first token and may do better later."""
        policy = self._retry_policy
        random_pause = wait_random_exponential(multiplier=policy.first_pause, max=policy.max_pause)

        def worth_it(error: BaseException) -> bool:
            return isinstance(error, CallFailed) and error.again and (error.retry_after or 0) <= policy.max_pause

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, CallFailed) else None
            return random_pause(state) if asked is None else asked

        def show(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, CallFailed):
                _show_retry(frames, error)

        attempts = policy.attempts * (2 if candidate is self._candidates[-1] else 1)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(attempts),
            wait=pause,
            retry=retry_if_exception(worth_it),
            before_sleep=show,
            reraise=True,
        )
        return await retrying(_ask, candidate, history, parameters, message)


def _show_retry(frames: Frames, failure: CallFailed) -> None:
    """Append the frame that explains a pause: a call of a model failed, and it or another model is called again."""
    frames.append("CUSTOM", name="retrying", value={"reason": failure.outcome.reason.value})


class _Message:
    """One text message on the frames; it starts with its first text that a person can see.

    Attributes:
        shown: it has started.
    """

    def __init__(self, frames: Frames) -> None:
        self.id = new_id()
        self.shown = False
        self._frames = frames
        self._blank = ""
        self._room = MAX_ANSWER

    def show(self, delta: str) -> bool:
        """Show the next text, and return whether all of it fit into an answer."""
        delta = self._blank + printable(delta)
        if not self.shown and is_blank(delta):
            self._blank = delta
            return size_of(delta) <= self._room
        if not self.shown:
            self.shown, self._blank = True, ""
            self._frames.append("TEXT_MESSAGE_START", messageId=str(self.id), role="assistant")
        size = size_of(delta)
        fits = size <= self._room
        if not fits:
            delta = fitting(delta, self._room)
        self._room -= size
        if delta:
            self._frames.text(self.id, delta)
        return fits


async def _ask(
    candidate: ModelCandidate, history: Sequence[ModelMessage], parameters: ModelRequestParameters, message: _Message
) -> ModelResponse:
    """Make one call; cancelling it closes the provider's connection.

    Raises:
        CallFailed: whatever went wrong, in our words.
    """
    began, fits, seconds, now = False, True, candidate.ref.request_seconds, asyncio.get_running_loop().time
    request = model_request_stream(
        candidate.model,
        history,
        model_settings=candidate.settings,
        model_request_parameters=parameters,
        instrument=False,
    )
    with _span(candidate) as span:
        try:
            async with asyncio.timeout(seconds) as idle:
                call = CallContext(lambda: idle.reschedule(now() + seconds), candidate.ref.dialect)
                with calling(call):
                    async with request as stream:
                        async for event in stream:
                            began = True
                            call.report_bytes()
                            if (delta := _text(event)) and not (fits := message.show(delta)):
                                break
                        reply = stream.get()
        except FOREIGN as error:
            sent = _sent(history, parameters)
            raise translate(error, candidate.label, began, sent=sent, base_url=candidate.base_url) from None
        reply = check_reply(
            reply if fits else cut(reply, fitting(printable(text_of(reply)), MAX_ANSWER), Truncation.SIZE),
            candidate.label,
        )
        _describe(span, candidate, reply)
    return reply


def _sent(history: Sequence[ModelMessage], parameters: ModelRequestParameters) -> str:
    """Return all text of a request, to be kept out of logs."""
    instructions = [part.content for part in parameters.instruction_parts or ()]
    return "\n".join([*instructions, *(dump(message) for message in history)])


def _text(event: ModelResponseStreamEvent) -> str:
    match event:
        case PartDeltaEvent(delta=TextPartDelta(content_delta=delta)) | PartStartEvent(part=TextPart(content=delta)):
            return delta
        case _:
            return ""


def _parameters(instructions: str, tools: Sequence[Tool]) -> ModelRequestParameters:
    return ModelRequestParameters(
        function_tools=[
            ToolDefinition(name=tool.name, description=tool.description, parameters_json_schema=dict(tool.parameters))
            for tool in tools
        ],
        instruction_parts=[InstructionPart(content=instructions)] if instructions else None,
    )


@contextmanager
def _span(candidate: ModelCandidate) -> Iterator[Span]:
    """Trace one call by OpenTelemetry's GenAI conventions, without any content."""
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": candidate.ref.provider,
        "gen_ai.request.model": candidate.ref.name,
    }
    with _tracer.start_as_current_span(
        f"chat {candidate.ref.name}",
        kind=SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except CallFailed as failure:
            metrics.MODEL_CALLS.labels(candidate.ref.provider, failure.outcome.reason.value).inc()
            span.set_attribute("error.type", failure.outcome.reason.value)
            span.set_status(StatusCode.ERROR, failure.detail)
            raise


def _describe(span: Span, candidate: ModelCandidate, reply: ModelResponse) -> None:
    provider, usage = candidate.ref.provider, reply.usage
    metrics.MODEL_CALLS.labels(provider, "ok").inc()
    metrics.MODEL_TOKENS.labels(provider, "input").inc(usage.input_tokens)
    metrics.MODEL_TOKENS.labels(provider, "output").inc(usage.output_tokens)
    span.set_attribute("gen_ai.response.model", reply.model_name or "")
    span.set_attribute("gen_ai.response.finish_reasons", [reply.finish_reason or ""])
    span.set_attribute("gen_ai.usage.input_tokens", usage.input_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", usage.output_tokens)

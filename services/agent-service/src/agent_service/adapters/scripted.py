"""The scripted model: a pydantic-ai model that answers from a model script, so that the loop around it is the real one.

It has the faults of providers that `adapters/models` has to survive: it raises the library's own errors, stalls, and
ends a stream without a finish reason.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import JsonValue
from pydantic_ai.exceptions import ModelHTTPError, ModelRateLimitError, ModelServerError
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponseStreamEvent,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from agent_service.adapters.scripts import PLACEHOLDER, Fault, ModelScript, Reply, ToolUse, When
from shared_models.ids import new_id

MAX_MATCHED = 4000
"""The characters of a message that patterns search; a slow pattern would take too long on a long message."""

_TOKEN = re.compile(r"\s*\S+|\s+$")

type Facts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ScriptInput:
    """The part of a history that the rules of a script match.

    Attributes:
        user_texts: the messages of the person, oldest first.
        tool: the tool of the last result, if no message of the person came after it.
        result: the text of that result.
    """

    user_texts: tuple[str, ...]
    tool: str | None = None
    result: str = ""


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """One reply that is ready to be streamed.

    Attributes:
        start_seconds: the time before the first token.
        token_seconds: the time for each token.
    """

    tokens: tuple[str, ...]
    calls: tuple[ToolUse, ...]
    start_seconds: float
    token_seconds: float
    fault: Fault | None


class ScriptedModel(Model):
    """A model that follows one script.

    It counts its faults over all conversations, so that a fault's `times` holds for the process.
    """

    def __init__(self, script: ModelScript) -> None:
        super().__init__()
        self._script = script
        self._faults: Counter[int] = Counter()

    @property
    def model_name(self) -> str:
        return self._script.metadata.name

    @property
    def system(self) -> str:
        return "scripted"

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        async with self.request_stream(messages, model_settings, model_request_parameters) as stream:
            async for _ in stream:
                pass
            return stream.get()

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,  # noqa: ARG002 - the library's signature
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,  # noqa: ARG002 - the library's signature
    ) -> AsyncGenerator[StreamedResponse]:
        read = script_input(messages)
        reply = self._choose(read)
        if reply.fault is not None and reply.fault.kind in {"rate_limit", "server_error"}:
            raise _provider_error(self.model_name, reply.fault)
        yield _ScriptedStream(model_request_parameters, self.model_name, reply, _count_words(read))

    def _choose(self, read: ScriptInput) -> ScriptedReply:
        spec = self._script.spec
        for number, rule in enumerate(spec.rules):
            if (groups := match_groups(rule.when, read)) is not None:
                return self._prepare(number, rule.reply, {**_facts(read), **groups})
        return self._prepare(len(spec.rules), spec.default, _facts(read))

    def _prepare(self, number: int, reply: Reply, facts: Facts) -> ScriptedReply:
        fault = reply.fault
        if fault is not None:
            self._faults[number] += 1
            if fault.times is not None and self._faults[number] > fault.times:
                fault = None
        token_ms = self._script.spec.token_ms if reply.token_ms is None else reply.token_ms
        text = fill(reply.text, facts) * reply.repeat
        calls = tuple(ToolUse(tool=call.tool, arguments=_filled(call.arguments, facts)) for call in reply.calls)
        return ScriptedReply(tuple(_TOKEN.findall(text)), calls, reply.start_ms / 1000, token_ms / 1000, fault)


def script_input(messages: Sequence[ModelMessage]) -> ScriptInput:
    """Return the part of a history that a script matches."""
    requests = [message for message in messages if isinstance(message, ModelRequest)]
    user_texts = tuple(
        part.content if isinstance(part.content, str) else ""
        for request in requests
        for part in request.parts
        if isinstance(part, UserPromptPart)
    )
    results = [part for part in requests[-1].parts if isinstance(part, ToolReturnPart)] if requests else []
    ends_with_user = bool(requests) and any(isinstance(part, UserPromptPart) for part in requests[-1].parts)
    if not results or ends_with_user:
        return ScriptInput(user_texts)
    return ScriptInput(user_texts, results[-1].tool_name, results[-1].model_response_str(wrap_if_error=False))


def match_groups(when: When, read: ScriptInput) -> dict[str, str] | None:
    """Return the named groups of a condition that holds; None if it does not hold."""
    if when.tool != read.tool:
        return None
    last, earlier = (read.user_texts[-1] if read.user_texts else ""), read.user_texts[-2::-1]
    groups: dict[str, str] = {}
    for pattern, texts in ((when.user, (last,)), (when.earlier, earlier), (when.result, (read.result,))):
        if pattern is None:
            continue
        match = next((found for text in texts if (found := pattern.search(text[:MAX_MATCHED]))), None)
        if match is None:
            return None
        groups.update({name: value for name, value in match.groupdict().items() if value is not None})
    return groups


def _facts(read: ScriptInput) -> dict[str, str]:
    texts = read.user_texts or ("",)
    return {
        "user": texts[-1],
        "first": texts[0],
        "previous": texts[-2] if len(texts) > 1 else "",
        "turn": str(len(texts)),
        "result": read.result,
    }


def fill(text: str, facts: Facts) -> str:
    """Replace each `${name}`; a group without a match becomes the empty text."""
    return PLACEHOLDER.sub(lambda found: facts.get(found[1], ""), text)


def _filled(arguments: Mapping[str, JsonValue], facts: Facts) -> dict[str, JsonValue]:
    return {name: _fill_value(value, facts) for name, value in arguments.items()}


def _fill_value(value: JsonValue, facts: Facts) -> JsonValue:
    if isinstance(value, str):
        return fill(value, facts)
    if isinstance(value, list):
        return [_fill_value(inner, facts) for inner in value]
    if isinstance(value, dict):
        return _filled(value, facts)
    return value


def _count_words(read: ScriptInput) -> int:
    """Count the words that the model read; this model counts a word as a token."""
    return sum(len(text.split()) for text in read.user_texts) + len(read.result.split())


def _provider_error(model: str, fault: Fault) -> ModelHTTPError:
    if fault.kind == "rate_limit":
        return ModelHTTPError.for_category(
            ModelRateLimitError, status_code=429, model_name=model, retry_after=fault.retry_after
        )
    return ModelHTTPError.for_category(ModelServerError, status_code=500, model_name=model)


@dataclass
class _ScriptedStream(StreamedResponse):
    """One scripted reply as a stream of the library."""

    name: str
    reply: ScriptedReply
    input_tokens: int
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        fault = self.reply.fault
        count = 0
        async for token in self._paced():
            if fault is not None and count == fault.after:
                break
            count += 1
            for event in self._parts_manager.handle_text_delta(vendor_part_id="text", content=token):
                yield event
        self._usage = RequestUsage(input_tokens=self.input_tokens, output_tokens=count)
        if fault is not None:
            await self._break_off(fault)
            return
        for call in self.reply.calls:
            yield self._parts_manager.handle_tool_call_part(
                vendor_part_id=None,
                tool_name=call.tool,
                args=dict(call.arguments),
                tool_call_id=f"call_{new_id().hex}",
            )
        self._finish("tool_call" if self.reply.calls else "stop")

    def _finish(self, reason: Literal["stop", "tool_call", "length"]) -> None:
        self.finish_reason = reason
        self.provider_details = {"finish_reason": reason}

    async def _paced(self) -> AsyncIterator[str]:
        """Yield the tokens on a fixed schedule, so that a late token does not delay the tokens after it."""
        now = asyncio.get_running_loop().time
        due = now() + self.reply.start_seconds
        for token in self.reply.tokens:
            due += self.reply.token_seconds
            await asyncio.sleep(max(0.0, due - now()))
            yield token

    async def _break_off(self, fault: Fault) -> None:
        if fault.kind == "stall":
            await asyncio.Event().wait()
        if fault.kind == "length":
            self._finish("length")

    async def close_stream(self) -> None:
        """Close nothing: a script holds no connection."""

    @property
    def model_name(self) -> str:
        return self.name

    @property
    def provider_name(self) -> str:
        return "scripted"

    @property
    def provider_url(self) -> None:
        return None

    @property
    def timestamp(self) -> datetime:
        return self.started

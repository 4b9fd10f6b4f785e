"""The scripted model: answers from a model script, as a pydantic-ai model, so that the loop around it is the real one.

Its faults are the ones `adapters/models` has to survive from providers: it raises the library's own errors, stalls, and
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
"""Characters of a message that patterns look at: a script's pattern may be slow, a message may be long."""

_TOKEN = re.compile(r"\s*\S+|\s+$")

type Facts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a script's rules look at.

    Attributes:
        said: all that the person said, oldest first.
        tool: the tool whose result came last, if no message of the person came after it.
        result: that result.
    """

    said: tuple[str, ...]
    tool: str | None = None
    result: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """One reply, ready to be sent."""

    tokens: tuple[str, ...]
    calls: tuple[ToolUse, ...]
    start: float
    pace: float
    fault: Fault | None


class ScriptedModel(Model):
    """Speaks one script; counts its faults over all conversations, so that `times` holds for the process."""

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
        plan = self._plan(hear(messages))
        if plan.fault is not None and plan.fault.kind in {"rate_limit", "server_error"}:
            raise _refusal(self.model_name, plan.fault)
        yield _ScriptedStream(model_request_parameters, self.model_name, plan, _size(messages))

    def _plan(self, heard: Heard) -> Planned:
        spec = self._script.spec
        for number, rule in enumerate(spec.rules):
            if (groups := applies(rule.when, heard)) is not None:
                return self._prepare(number, rule.reply, {**_facts(heard), **groups})
        return self._prepare(len(spec.rules), spec.default, _facts(heard))

    def _prepare(self, number: int, reply: Reply, facts: Facts) -> Planned:
        fault = reply.fault
        if fault is not None:
            self._faults[number] += 1
            if fault.times is not None and self._faults[number] > fault.times:
                fault = None
        pace = self._script.spec.token_ms if reply.token_ms is None else reply.token_ms
        text = fill(reply.text, facts) * reply.repeat
        calls = tuple(ToolUse(tool=call.tool, arguments=_filled(call.arguments, facts)) for call in reply.calls)
        return Planned(tuple(_TOKEN.findall(text)), calls, reply.start_ms / 1000, pace / 1000, fault)


def hear(messages: Sequence[ModelMessage]) -> Heard:
    """Read a history as a script sees it."""
    requests = [message for message in messages if isinstance(message, ModelRequest)]
    said = tuple(
        part.content if isinstance(part.content, str) else ""
        for request in requests
        for part in request.parts
        if isinstance(part, UserPromptPart)
    )
    results = [part for part in requests[-1].parts if isinstance(part, ToolReturnPart)] if requests else []
    asked = bool(requests) and any(isinstance(part, UserPromptPart) for part in requests[-1].parts)
    if not results or asked:
        return Heard(said)
    return Heard(said, results[-1].tool_name, results[-1].model_response_str(wrap_if_error=False))


def applies(when: When, heard: Heard) -> dict[str, str] | None:
    """Return the named groups of a condition that holds, or None."""
    if when.tool != heard.tool:
        return None
    last, before = (heard.said[-1] if heard.said else ""), heard.said[-2::-1]
    groups: dict[str, str] = {}
    for pattern, texts in ((when.user, (last,)), (when.earlier, before), (when.result, (heard.result,))):
        if pattern is None:
            continue
        match = next((found for text in texts if (found := pattern.search(text[:MAX_MATCHED]))), None)
        if match is None:
            return None
        groups.update({name: value for name, value in match.groupdict().items() if value is not None})
    return groups


def _facts(heard: Heard) -> dict[str, str]:
    said = heard.said or ("",)
    return {
        "user": said[-1],
        "first": said[0],
        "previous": said[-2] if len(said) > 1 else "",
        "turn": str(len(said)),
        "result": heard.result,
    }


def fill(text: str, facts: Facts) -> str:
    """Replace each `${name}`; a group that did not take part in the match becomes nothing."""
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


def _size(messages: Sequence[ModelMessage]) -> int:
    """Count the words of a history: what this model calls tokens."""
    heard = hear(messages)
    return sum(len(text.split()) for text in heard.said) + len(heard.result.split())


def _refusal(model: str, fault: Fault) -> ModelHTTPError:
    if fault.kind == "rate_limit":
        return ModelHTTPError.for_category(
            ModelRateLimitError, status_code=429, model_name=model, retry_after=fault.retry_after
        )
    return ModelHTTPError.for_category(ModelServerError, status_code=500, model_name=model)


@dataclass
class _ScriptedStream(StreamedResponse):
    """One planned reply as the library's stream."""

    name: str
    plan: Planned
    heard_tokens: int
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        fault = self.plan.fault
        count = 0
        async for token in self._paced():
            if fault is not None and count == fault.after:
                break
            count += 1
            for event in self._parts_manager.handle_text_delta(vendor_part_id="text", content=token):
                yield event
        self._usage = RequestUsage(input_tokens=self.heard_tokens, output_tokens=count)
        if fault is not None:
            await self._break_off(fault)
            return
        for call in self.plan.calls:
            yield self._parts_manager.handle_tool_call_part(
                vendor_part_id=None,
                tool_name=call.tool,
                args=dict(call.arguments),
                tool_call_id=f"call_{new_id().hex}",
            )
        self._finish("tool_call" if self.plan.calls else "stop")

    def _finish(self, reason: Literal["stop", "tool_call", "length"]) -> None:
        self.finish_reason = reason
        self.provider_details = {"finish_reason": reason}

    async def _paced(self) -> AsyncIterator[str]:
        """Yield tokens on a schedule, so that a late one does not delay those after it."""
        now = asyncio.get_running_loop().time
        due = now() + self.plan.start
        for token in self.plan.tokens:
            due += self.plan.pace
            await asyncio.sleep(max(0.0, due - now()))
            yield token

    async def _break_off(self, fault: Fault) -> None:
        if fault.kind == "stall":
            await asyncio.Event().wait()
        if fault.kind == "length":
            self._finish("length")

    async def close_stream(self) -> None:
        """Nothing is open."""

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

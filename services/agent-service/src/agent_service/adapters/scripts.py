"""Model scripts: `kind: ModelScript`, what the scripted model says, as people write it in `agent-configs/scripts/`.

They are the keyless default, and the double in tests, evaluations and benchmarks; `adapters/scripted` speaks them.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from shared_models.agents import ConfigModel, Metadata
from shared_models.requests import Name

PLACEHOLDER = re.compile(r"\$\{([A-Za-z_]\w*)\}")

FACTS = frozenset({"user", "first", "previous", "turn", "result"})
"""Names every text may use: the last, the first and the one before last thing the person said, how many things they
said, and the last tool result. Named groups of a rule's patterns come on top."""


def _compiled(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return re.compile(value)
    except re.error as error:
        msg = f"not a regular expression: {error}"
        raise ValueError(msg) from error


Pattern = Annotated[re.Pattern[str], BeforeValidator(_compiled)]


class When(ConfigModel):
    """When a rule applies: all of these that are set hold.

    Attributes:
        user: found in what the person said last.
        earlier: found in something the person said before; the latest counts.
        tool: the model is asked right after this tool's result; without it, right after the person spoke.
        result: found in that result.
    """

    user: Pattern | None = None
    earlier: Pattern | None = None
    tool: Name | None = None
    result: Pattern | None = None

    @property
    def groups(self) -> frozenset[str]:
        patterns = (self.user, self.earlier, self.result)
        return frozenset(name for pattern in patterns if pattern is not None for name in pattern.groupindex)


class ToolUse(ConfigModel):
    """A tool call; placeholders work in the texts of its arguments."""

    tool: Name
    arguments: dict[str, JsonValue] = Field(default_factory=dict)


class Fault(ConfigModel):
    """What goes wrong instead of a whole reply.

    Attributes:
        kind: `rate_limit` and `server_error` come before the first token; `stall` stops sending; `cut` ends the stream
            without a finish reason; `length` ends the reply at the model's limit of tokens.
        after: tokens that `stall`, `cut` and `length` let through first.
        retry_after: seconds a `rate_limit` asks to wait.
        times: how often it happens before the reply comes whole; without it, always.
    """

    kind: Literal["rate_limit", "server_error", "stall", "cut", "length"]
    after: Annotated[int, Field(ge=0)] = 0
    retry_after: Annotated[float, Field(ge=0)] | None = None
    times: Annotated[int, Field(ge=1)] | None = None


class Reply(ConfigModel):
    """What the model sends.

    Attributes:
        text: Markdown; `${name}` is replaced by a fact or by a named group of the rule's patterns.
        calls: tools it calls.
        repeat: how often the text is said, for long answers.
        token_ms: milliseconds for each token (a word and the space before it); the script's when unset.
        start_ms: milliseconds before the first token.
        fault: what goes wrong.
    """

    text: str = ""
    calls: tuple[ToolUse, ...] = ()
    repeat: Annotated[int, Field(ge=1, le=100_000)] = 1
    token_ms: Annotated[float, Field(ge=0, le=60_000)] | None = None
    start_ms: Annotated[float, Field(ge=0, le=600_000)] = 0
    fault: Fault | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.text and not self.calls and self.fault is None:
            msg = "expected a text, calls or a fault"
            raise ValueError(msg)
        return self

    def placeholders(self) -> Iterator[str]:
        yield from PLACEHOLDER.findall(self.text)
        for call in self.calls:
            yield from _placeholders(call.arguments)


class Rule(ConfigModel):
    when: When
    reply: Reply

    @model_validator(mode="after")
    def _fills_all_placeholders(self) -> Self:
        _refuse_unknown(self.reply, FACTS | self.when.groups)
        return self


class ScriptSpec(ConfigModel):
    """The first rule that applies speaks; where none does, `default`."""

    token_ms: Annotated[float, Field(ge=0, le=60_000)] = 0
    rules: tuple[Rule, ...] = ()
    default: Reply

    @model_validator(mode="after")
    def _fills_all_placeholders(self) -> Self:
        _refuse_unknown(self.default, FACTS)
        return self


class ModelScript(ConfigModel):
    api_version: Literal["flotilla/v1"] = Field(alias="apiVersion")
    kind: Literal["ModelScript"]
    metadata: Metadata
    spec: ScriptSpec


def _placeholders(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield from PLACEHOLDER.findall(value)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _placeholders(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _placeholders(inner)


def _refuse_unknown(reply: Reply, known: frozenset[str]) -> None:
    unknown = sorted(set(reply.placeholders()) - known)
    if unknown:
        msg = f"nothing fills ${{{unknown[0]}}}; known here are {', '.join(sorted(known))}"
        raise ValueError(msg)

"""Model scripts (`kind: ModelScript`): the replies of the scripted model, as people write them in YAML.

They lie in `agent-configs/scripts/`, and `adapters/scripted` follows them. A scripted model is the default without
provider keys, and the model of tests, evaluations and benchmarks.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from shared_models.agents import ConfigModel, Metadata
from shared_models.requests import Name

PLACEHOLDER = re.compile(r"\$\{([A-Za-z_]\w*)\}")

FACTS = frozenset({"user", "first", "previous", "turn", "result"})
"""The names that every text may use: the last, the first and the second last message of the person, the number of their
messages, and the last tool result. A rule's texts may also use the named groups of its patterns."""


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
    """The condition of a rule: every attribute that is set has to hold.

    Attributes:
        user: matches the last message of the person.
        earlier: matches an earlier message of the person; the latest match counts.
        tool: the tool whose result ends the history; unset, a message of the person ends it.
        result: matches that result.
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
    """A fault that takes the place of a whole reply.

    Attributes:
        kind: `rate_limit` and `server_error` come before the first token; `stall` stops sending; `cut` ends the stream
            without a finish reason; `length` ends the reply at the model's limit of tokens.
        after: the tokens before a `stall`, a `cut` or a `length`.
        retry_after: the seconds that a `rate_limit` asks the caller to wait.
        times: the number of faults before the reply comes whole; unset, every reply has the fault.
    """

    kind: Literal["rate_limit", "server_error", "stall", "cut", "length"]
    after: Annotated[int, Field(ge=0)] = 0
    retry_after: Annotated[float, Field(ge=0)] | None = None
    times: Annotated[int, Field(ge=1)] | None = None


class Reply(ConfigModel):
    """One reply of the model.

    Attributes:
        text: Markdown; `${name}` stands for a fact or for a named group of the rule's patterns.
        calls: its tool calls.
        repeat: the number of times that the text is repeated, for long answers.
        token_ms: milliseconds for each token (a word and the space before it); the script's when unset.
        start_ms: milliseconds before the first token.
        fault: the fault that takes the place of the whole reply.
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
    """The rules of a script: the first rule whose condition holds gives the reply, else `default`."""

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

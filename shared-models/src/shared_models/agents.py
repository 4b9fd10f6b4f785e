"""Agent configuration: `kind: Agent`, as people write it in `agent-configs/agents/<name>-v<N>.yaml`.

A file is immutable once applied: its revision is the digest of its content. `parse_agent` alone reads such files. Its
errors name file, line and column, because people read them beside an editor.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from pydantic_core import to_json

from shared_models.requests import Name

MAX_FILE = 1_048_576
"""Bytes of one configuration file."""
MAX_DEPTH = 50
"""YAML collections in one another, because the reader recurses."""
MAX_VALUES = 5_000
"""Collections, keys and values of one YAML file; the reader takes about 0.1 ms for each."""
MAX_MISTAKES = 20
"""Mistakes that one error names."""


class ConfigModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Metadata(ConfigModel):
    name: Name
    description: str = ""
    labels: dict[str, str] = Field(default_factory=dict)


Member = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""A member of a request's body, as the provider's protocol names it."""

_NEEDED = frozenset({"model", "messages", "stream", "tools"})


class Dialect(ConfigModel):
    """How requests are changed for a server that knows less than the provider whose protocol it speaks.

    Attributes:
        rename: members of the request's body by their new names, such as {max_completion_tokens: max_tokens}.
        omit: members that are not sent, such as [stream_options]; without that one there are no token counts.
    """

    rename: dict[Member, Member] = Field(default_factory=dict, max_length=16)
    omit: tuple[Member, ...] = Field(default=(), max_length=16)

    @field_validator("rename", "omit")
    @classmethod
    def _keeps_the_question[T: (dict[str, str], tuple[str, ...])](cls, members: T) -> T:
        if needed := sorted(_NEEDED.intersection(members)):
            msg = f"{needed[0]} is sent always; expected none of {', '.join(sorted(_NEEDED))}"
            raise ValueError(msg)
        return members


class ModelRef(ConfigModel):
    """The model that answers, and its parameters.

    Attributes:
        provider: `scripted` needs no key; `openai` takes OPENAI_API_KEY and OPENAI_BASE_URL from the environment.
        name: the provider's model name; for `scripted` the name of a file in `agent-configs/scripts/`.
        temperature: 0 to 2, for models that have this parameter.
        max_tokens: tokens of the longest answer.
        request_seconds: seconds that one call may take to its first byte, and from one byte to the next; the meaning of
            the bytes does not count.
        dialect: changes of requests for a server that knows less than its provider; a member that the server refuses
            by name is left out without it.
    """

    provider: Literal["scripted", "openai"]
    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    request_seconds: Annotated[float, Field(gt=0, le=600)] = 60.0
    # Left out of the digest where it says nothing, so that agents written before it keep their revisions.
    dialect: Dialect = Field(default=Dialect(), exclude_if=lambda dialect: dialect == Dialect())


class Prompts(ConfigModel):
    system: Annotated[str, StringConstraints(max_length=65_536)] = ""


class AgentLimits(ConfigModel):
    """Bounds of one run.

    Attributes:
        steps: model calls, at most.
        seconds: seconds of active time, at most; the request's own deadline is wall time.
        history_messages: messages of the session that the model is sent, at most.
    """

    steps: Annotated[int, Field(ge=1, le=100)] = 10
    seconds: Annotated[int, Field(ge=1, le=3600)] = 300
    history_messages: Annotated[int, Field(ge=2, le=1000)] = 40


class AgentSpec(ConfigModel):
    """The agent's model, prompts, tools and limits.

    Attributes:
        model: the model that answers.
        fallbacks: models that are tried, in this order, when `model` cannot answer.
        prompts: the texts that every model call begins with.
        tools: names of built-in read-only tools that the agent may call.
        limits: bounds of one run.
    """

    model: ModelRef
    fallbacks: tuple[ModelRef, ...] = Field(default=(), max_length=4)
    prompts: Prompts = Prompts()
    tools: tuple[Name, ...] = Field(default=(), max_length=64)
    limits: AgentLimits = AgentLimits()


class Agent(ConfigModel):
    api_version: Literal["flotilla/v1"] = Field(alias="apiVersion")
    kind: Literal["Agent"]
    metadata: Metadata
    spec: AgentSpec

    @property
    def revision(self) -> str:
        """Sixteen hex digits of a SHA-256 over the file's content, without comments and layout."""
        return hashlib.sha256(to_json(self.model_dump(mode="json", by_alias=True))).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a file; `where` is the dotted path to it, line and column count from 1."""

    line: int
    column: int
    where: str
    message: str


class ConfigError(ValueError):
    """A configuration file is invalid; the message names every mistake as file:line:column."""

    def __init__(self, file: str, mistakes: tuple[Mistake, ...]) -> None:
        self.file = file
        self.mistakes = mistakes
        super().__init__(
            "\n".join(f"{file}:{m.line}:{m.column}: {f'{m.where}: ' if m.where else ''}{m.message}" for m in mistakes)
        )


def parse_agent(file: str, text: str) -> Agent:
    """Read an agent file.

    Args:
        file: the file's name, for messages.
        text: YAML without aliases, at most `MAX_FILE` bytes.

    Raises:
        ConfigError: names each mistake with its line and column.
    """
    return parse_document(file, text, Agent)


def parse_document[T: BaseModel](file: str, text: str, model: type[T]) -> T:
    """Read one YAML document as `model`; see `parse_agent`."""
    root = _compose(file, text)
    try:
        return model.model_validate(yaml.SafeLoader("").construct_document(root))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_MISTAKES]
        raise ConfigError(file, tuple(_mistake(root, fault["loc"], fault["msg"]) for fault in faults)) from error


def config_error(file: str, text: str, faults: Mapping[tuple[int | str, ...], str]) -> ConfigError:
    """Return an error for mistakes found by comparing several files; `faults` maps paths in this file to messages."""
    root = _compose(file, text)
    return ConfigError(file, tuple(_mistake(root, path, message) for path, message in faults.items()))


def check_yaml(file: str, text: str) -> None:
    """Refuse YAML that costs too much to read, or that has aliases; a stream of events, so no depth recurses.

    Raises:
        ConfigError: the text is too large, too deep, has too many values or an alias, or is not YAML.
    """
    if len(text.encode()) > MAX_FILE:
        raise ConfigError(file, (Mistake(1, 1, "", f"the file is larger than {MAX_FILE} bytes"),))
    depth = values = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            values += isinstance(event, yaml.NodeEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise _mistake_at(file, event, "YAML aliases (*name) are not allowed; write the value out")
            if depth > MAX_DEPTH:
                raise _mistake_at(file, event, f"more than {MAX_DEPTH} collections in one another")
            if values > MAX_VALUES:
                raise _mistake_at(file, event, f"more than {MAX_VALUES} keys and values")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ConfigError(file, (Mistake(line, column, "", f"not YAML: {error.problem}"),)) from error
    except yaml.reader.ReaderError as error:
        raise ConfigError(file, (Mistake(1, 1, "", f"not YAML: {error.reason}"),)) from error


def _mistake_at(file: str, event: yaml.Event, message: str) -> ConfigError:
    mark = event.start_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return ConfigError(file, (Mistake(line, column, "", message),))


def _compose(file: str, text: str) -> yaml.Node:
    check_yaml(file, text)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ConfigError(file, (Mistake(line, column, "", f"not YAML: {error.problem}"),)) from error
    if root is None:
        raise ConfigError(file, (Mistake(1, 1, "", "the file is empty; expected apiVersion, kind, metadata, spec"),))
    _refuse_duplicate_keys(file, root)
    return root


def _refuse_duplicate_keys(file: str, node: yaml.Node) -> None:
    """Refuse a mapping with a key twice, because YAML readers keep only one of the two; depth is bounded before."""
    if isinstance(node, yaml.MappingNode):
        keys: set[tuple[str, str]] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in keys:
                    mark, message = key.start_mark, f"the key {key.value[:63]!r} stands here twice; remove one"
                    raise ConfigError(file, (Mistake(mark.line + 1, mark.column + 1, "", message),))
                keys.add((key.tag, key.value))
            _refuse_duplicate_keys(file, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_duplicate_keys(file, value)


def _mistake(root: yaml.Node, path: tuple[int | str, ...], message: str) -> Mistake:
    """Return a mistake at the deepest node of the document that `path` leads to."""
    node = root
    for step in path:
        child = _child(node, step)
        if child is None:
            break
        node = child
    return Mistake(node.start_mark.line + 1, node.start_mark.column + 1, ".".join(map(str, path)), message)


def _child(node: yaml.Node, step: int | str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        found: yaml.Node = node.value[step]
        return found
    return None

"""Agent configuration: `kind: Agent`, as people write it in `agent-configs/agents/<name>-v<N>.yaml`.

A file is immutable once applied: its revision is the digest of its content. `parse_agent` alone reads such files. Its
errors name file, line and column, because people read them beside an editor.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import to_json

from shared_models.requests import Name

MAX_FILE = 1_048_576
"""Bytes of one configuration file."""
DEFAULT: Final = "default"
"""The provider and the name of a model that is chosen when the agent is applied: the provider whose key is there."""
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


BodyMember = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""A member of a request's body, as the provider's protocol names it."""

_NEEDED = frozenset({"model", "messages", "stream", "tools"})


class Dialect(ConfigModel):
    """The changes of requests for a server that implements only a part of its provider's protocol.

    Attributes:
        rename: members of the request's body by their new names, such as {max_completion_tokens: max_tokens}.
        omit: members that are not sent, such as [stream_options]; a request without stream_options gets no token
            counts.
    """

    rename: dict[BodyMember, BodyMember] = Field(default_factory=dict, max_length=16)
    omit: tuple[BodyMember, ...] = Field(default=(), max_length=16)

    @field_validator("rename", "omit")
    @classmethod
    def _refuse_required_members[T: (dict[str, str], tuple[str, ...])](cls, members: T) -> T:
        if needed := sorted(_NEEDED.intersection(members)):
            msg = f"{needed[0]} cannot be renamed or left out; the same holds for all of {', '.join(sorted(_NEEDED))}"
            raise ValueError(msg)
        return members


class ModelRef(ConfigModel):
    """The model that answers, and its parameters.

    Attributes:
        provider: `scripted` needs no key; `openai` takes OPENAI_API_KEY and OPENAI_BASE_URL from the environment;
            `default` is the provider whose key is there, and `scripted` without one.
        name: the provider's model name; for `scripted` the name of a file in `agent-configs/scripts/`; for `default` it
            is `default`.
        temperature: 0 to 2, for models that have this parameter.
        max_tokens: tokens of the longest answer.
        request_seconds: seconds that one call may take to its first byte, and from one byte to the next; any byte ends
            a silence, also a heartbeat.
        dialect: changes of requests for a server that implements only a part of the protocol; a member that the server
            refuses by name is left out even without a dialect.
    """

    provider: Literal["scripted", "openai", "default"]
    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    request_seconds: Annotated[float, Field(gt=0, le=600)] = 60.0
    # An empty dialect is left out of the digest, so that older agent files keep their revisions.
    dialect: Dialect = Field(default=Dialect(), exclude_if=lambda dialect: dialect == Dialect())

    @model_validator(mode="after")
    def _names_no_model_of_an_unknown_provider(self) -> Self:
        if self.provider == DEFAULT and self.name != DEFAULT:
            msg = f"a model has a name where its provider is known; expected provider openai, or the name {DEFAULT}"
            raise ValueError(msg)
        return self


def _model_of_a_word(value: object) -> object:
    """Return the mapping that the word `default` stands for; anything else is left to the model's own checks."""
    if not isinstance(value, str):
        return value
    if value != DEFAULT:
        msg = f"expected {DEFAULT}, or a mapping such as {{provider: openai, name: gpt-5-mini}}"
        raise ValueError(msg)
    return {"provider": DEFAULT, "name": DEFAULT}


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
        model: the model that answers; the word `default` is the model of the provider whose key is there.
        fallbacks: models that are tried, in this order, when `model` cannot answer.
        prompts: the texts that every model call begins with.
        tools: names of built-in read-only tools that the agent may call.
        limits: bounds of one run.
    """

    model: Annotated[ModelRef, BeforeValidator(_model_of_a_word, json_schema_input_type=ModelRef | Literal["default"])]
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
    """One mistake in a file; `where` is the dotted path to it, line and column count from 1.

    A line of 0 says that the mistake is the file itself, such as its absence.
    """

    line: int
    column: int
    where: str
    message: str


class ConfigError(ValueError):
    """A configuration file is invalid; the message names every mistake as file:line:column."""

    def __init__(self, file: str, mistakes: tuple[Mistake, ...]) -> None:
        self.file = file
        self.mistakes = mistakes
        super().__init__("\n".join(f"{file}:{_place(mistake)} {mistake.message}" for mistake in mistakes))


def _place(mistake: Mistake) -> str:
    position = f"{mistake.line}:{mistake.column}:" if mistake.line else ""
    return f"{position} {mistake.where}:" if mistake.where else position


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
        return model.model_validate(_content(file, root))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_MISTAKES]
        raise ConfigError(file, tuple(_mistake(root, fault["loc"], fault["msg"]) for fault in faults)) from error


def _content(file: str, root: yaml.Node) -> object:
    """Return the values of a document; dates, numbers and tags are read here, and may be none."""
    try:
        content: object = yaml.SafeLoader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(file, error) from error
    except ValueError as error:
        raise ConfigError(file, (Mistake(1, 1, "", f"a date or a number in it cannot be read: {error}"),)) from error
    return content


def _not_yaml(file: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return ConfigError(file, (Mistake(line, column, "", f"not YAML: {error.problem}"),))


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
        raise _not_yaml(file, error) from error
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
        raise _not_yaml(file, error) from error
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

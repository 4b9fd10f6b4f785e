"""The catalogue of agents: every version of each agent, by name and by revision."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from agent_service.errors import UnknownAgent
from shared_models.agents import DEFAULT, Agent, ModelRef
from shared_models.requests import OpenModel


@dataclass(frozen=True, slots=True)
class AgentFile:
    """One version of an agent, as its file defines it.

    Attributes:
        path: of the file, for people.
        version: the number in the name of the file.
        digest: of the content of the file; a changed file has another one.
        agent: the agent; its revision differs from `digest` where `model: default` was replaced by a model.
    """

    path: str
    version: int
    digest: str
    agent: Agent

    @property
    def name(self) -> str:
        return self.agent.metadata.name

    @property
    def uses_default(self) -> bool:
        """Tell whether a model of the agent is still to be chosen."""
        return any(model.provider == DEFAULT for model in models_of(self.agent))


class AgentCatalog:
    """The agents that the agent files define.

    Args:
        files: all versions of all agents, in any order; the highest version of a name is the current one.
        default: the name of the agent for requests that name none.

    Raises:
        UnknownAgent: no agent has the default name.
    """

    def __init__(self, files: Iterable[AgentFile], default: str) -> None:
        self.files = tuple(sorted(files, key=lambda file: (file.name, file.version)))
        self.default = default
        self._current = {file.name: file for file in self.files}
        self._revisions = {file.agent.revision: file.agent for file in self.files}
        self.find(default)

    def __iter__(self) -> Iterator[Agent]:
        """Yield each revision once."""
        return iter(self._revisions.values())

    @property
    def current(self) -> tuple[AgentFile, ...]:
        """The current version of each agent, by name."""
        return tuple(self._current.values())

    def find(self, name: str | None) -> Agent:
        """Return the current revision of an agent, or of the default agent for None.

        Raises:
            UnknownAgent: no file defines it.
        """
        name = self.default if name is None else name
        if name not in self._current:
            raise UnknownAgent(f"{name[:63]!r}; known are {', '.join(self._current) or 'none'}")
        return self._current[name].agent

    def revision(self, digest: str) -> Agent:
        """Return the agent with exactly this revision.

        Raises:
            UnknownAgent: no file has this revision any more.
        """
        if digest not in self._revisions:
            raise UnknownAgent(f"no file has revision {digest[:16]!r}")
        return self._revisions[digest]


class AgentView(OpenModel):
    """One agent, as people choose it.

    Attributes:
        version: the number in the name of its file.
        revision: the digest of its configuration, as results name it.
        provider, model: the model that answers.
        default: whether it answers where a request names no agent.
        edited: whether its file was edited after runs had used this version.
    """

    name: str
    description: str
    version: int
    revision: str
    provider: str
    model: str
    default: bool
    edited: bool


class AgentList(OpenModel):
    """The body of `GET /api/v1/agents`: the current version of each agent, by name."""

    agents: tuple[AgentView, ...]

    @classmethod
    def of(cls, catalog: AgentCatalog, edited: Collection[AgentFile]) -> Self:
        return cls(agents=tuple(_view_of(file, catalog.default, edited) for file in catalog.current))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(agent.name for agent in self.agents)


def _view_of(file: AgentFile, default: str, edited: Collection[AgentFile]) -> AgentView:
    model = file.agent.spec.model
    return AgentView(
        name=file.name,
        description=file.agent.metadata.description,
        version=file.version,
        revision=file.agent.revision,
        provider=model.provider,
        model=model.name,
        default=file.name == default,
        edited=file in edited,
    )


def edit_remedy(name: str, version: int) -> str:
    """Say what to do about a file that was edited in place."""
    return f"it was edited after it was used: name it {name}-v{version + 1}.yaml, and restore version {version}"


def models_of(agent: Agent) -> tuple[ModelRef, ...]:
    """Return the model of an agent and its fallbacks."""
    return (agent.spec.model, *agent.spec.fallbacks)


def with_default_model(agent: Agent, chosen: ModelRef) -> Agent:
    """Return the agent with `chosen` in the place of `model: default`; the parameters in the file stay."""
    named = {"provider": chosen.provider, "name": chosen.name}
    model, *fallbacks = (ref.model_copy(update=named) if ref.provider == DEFAULT else ref for ref in models_of(agent))
    spec = agent.spec.model_copy(update={"model": model, "fallbacks": tuple(fallbacks)})
    return agent.model_copy(update={"spec": spec})

"""The catalogue of agents: every version of each agent, by name and by revision."""

from collections.abc import Iterable, Iterator

from agent_service.errors import UnknownAgent
from shared_models.agents import Agent


class AgentCatalog:
    """The agents that the agent files define.

    Args:
        versions: pairs of version and agent, in any order; the highest version of a name is the current one.
        default: the name of the agent for requests that name none.

    Raises:
        UnknownAgent: no agent has the default name.
    """

    def __init__(self, versions: Iterable[tuple[int, Agent]], default: str) -> None:
        ordered = [agent for _, agent in sorted(versions, key=lambda entry: entry[0])]
        self._current = {agent.metadata.name: agent for agent in ordered}
        self._revisions = {agent.revision: agent for agent in ordered}
        self._default = self.find(default)

    def __iter__(self) -> Iterator[Agent]:
        """Yield each revision once."""
        return iter(self._revisions.values())

    def find(self, name: str | None) -> Agent:
        """Return the current revision of an agent, or of the default agent for None.

        Raises:
            UnknownAgent: no file defines it.
        """
        if name is None:
            return self._default
        if name not in self._current:
            raise UnknownAgent(f"{name[:63]!r}; known are {', '.join(sorted(self._current)) or 'none'}")
        return self._current[name]

    def revision(self, digest: str) -> Agent:
        """Return the agent with exactly this revision.

        Raises:
            UnknownAgent: no file has this revision any more.
        """
        if digest not in self._revisions:
            raise UnknownAgent(f"no file has revision {digest[:16]!r}")
        return self._revisions[digest]

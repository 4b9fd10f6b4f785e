"""Agents by name, each with the configuration, the models and the tools of its current revision."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from agent_service.adapters.agent_files import load_configuration
from agent_service.adapters.providers import Providers, ProviderSettings
from agent_service.adapters.tools import Toolbox
from agent_service.domain.agents import AgentCatalog
from agent_service.usecases.perform_run import AgentRuntime
from shared_clients.errors import Permanent


class AgentFolder:
    """The agents of one `agent-configs/`."""

    def __init__(self, catalog: AgentCatalog, providers: Providers, toolbox: Toolbox) -> None:
        self._catalog = catalog
        self._providers = providers
        self._toolbox = toolbox

    def runtime_of(self, name: str | None) -> AgentRuntime:
        """Return an agent with its models and tools; see `perform_run.Agents`."""
        agent = self._catalog.find(name)
        return AgentRuntime(agent, self._providers.chain(agent), self._toolbox.pick(agent.spec.tools))


@asynccontextmanager
async def open_agents(
    folder: Path,
    default: str,
    openai_api_key: SecretStr | None,
    openai_base_url: str | None,
    *,
    scripted: bool = True,
) -> AsyncGenerator[AgentFolder]:
    """Read the agents and open their providers; on leaving, close the providers.

    Args:
        folder: of the agents' files.
        default: the agent for requests that name none.
        openai_api_key: the key of OpenAI's API.
        openai_base_url: another server that speaks OpenAI's API.
        scripted: whether an agent may use a scripted model; production refuses it.

    Raises:
        ConfigError: a file cannot be used.
        Permanent: an agent uses a scripted model where that is refused.
        MissingKeyError: an agent's provider has no key.
    """
    toolbox = Toolbox()
    configuration = load_configuration(folder, tools=toolbox.names, default_agent=default)
    if not scripted:
        _refuse_scripted(configuration.agents)
    providers = Providers(ProviderSettings(openai_api_key, openai_base_url), configuration.scripts)
    try:
        agents = AgentFolder(configuration.agents, providers, toolbox)
        for agent in configuration.agents:
            providers.chain(agent)
        yield agents
    finally:
        await providers.close()


def _refuse_scripted(agents: AgentCatalog) -> None:
    for agent in agents:
        if any(ref.provider == "scripted" for ref in (agent.spec.model, *agent.spec.fallbacks)):
            expected = "name a model of another provider, or remove the agent from FLOTILLA_AGENT_CONFIGS"
            raise Permanent(f"agent {agent.metadata.name} uses a scripted model, which production refuses; {expected}")

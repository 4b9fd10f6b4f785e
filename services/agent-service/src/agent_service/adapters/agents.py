"""Agents by name, each with the configuration, the models and the tools of its current revision."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from agent_service.adapters.agent_files import Configuration, load_configuration
from agent_service.adapters.default_model import choose_default_model
from agent_service.adapters.providers import Providers, ProviderSettings
from agent_service.adapters.tools import Toolbox
from agent_service.domain.agents import AgentCatalog
from agent_service.usecases.perform_run import AgentRuntime
from shared_clients.errors import Permanent
from shared_models.agents import ConfigError


class AgentFolder:
    """The agents of one `agent-configs/`."""

    def __init__(self, catalog: AgentCatalog, providers: Providers, toolbox: Toolbox) -> None:
        self.catalog = catalog
        self._providers = providers
        self._toolbox = toolbox

    def runtime_of(self, name: str | None) -> AgentRuntime:
        """Return an agent with its models and tools; see `perform_run.Agents`."""
        agent = self.catalog.find(name)
        return AgentRuntime(agent, self._providers.chain(agent), self._toolbox.pick(agent.spec.tools))


async def read_agents(
    folder: Path, default: str, settings: ProviderSettings, *, scripted: bool = True
) -> Configuration:
    """Read and check the agents and scripts of a folder, and choose the model that `model: default` stands for.

    Args:
        folder: of the agents' files.
        default: the agent for requests that name none.
        settings: the keys and addresses of the providers.
        scripted: whether an agent may use a scripted model; production refuses it.

    Raises:
        Permanent: a file cannot be used, or one is missing, with a line for each mistake; or the server at
            OPENAI_BASE_URL names no model for `model: default`; or an agent uses a scripted model and may not.
    """
    try:
        configuration = load_configuration(
            folder, tools=Toolbox().names, default_agent=default, providers=settings.configured
        )
        uses_default = any(file.uses_default for file in configuration.agents.files)
        configuration = configuration.with_models(await choose_default_model(settings) if uses_default else None)
    except ConfigError as error:
        raise Permanent(str(error)) from error
    if not scripted:
        _refuse_scripted(configuration.agents)
    return configuration


@asynccontextmanager
async def open_agents(configuration: Configuration, settings: ProviderSettings) -> AsyncGenerator[AgentFolder]:
    """Open the providers of all agents; on leaving, close them."""
    providers = Providers(settings, configuration.scripts)
    try:
        for agent in configuration.agents:
            providers.chain(agent)
        yield AgentFolder(configuration.agents, providers, Toolbox())
    finally:
        await providers.close()


def _refuse_scripted(agents: AgentCatalog) -> None:
    for agent in agents:
        if any(ref.provider == "scripted" for ref in (agent.spec.model, *agent.spec.fallbacks)):
            expected = "name a model of another provider, or remove the agent from FLOTILLA_AGENT_CONFIGS"
            raise Permanent(f"agent {agent.metadata.name} uses a scripted model, which production refuses; {expected}")

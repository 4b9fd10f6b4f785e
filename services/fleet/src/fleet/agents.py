"""The agents of a fleet: read and checked before anything else starts, and described to the person who starts it."""

from collections.abc import Iterator
from dataclasses import dataclass

from agent_service.adapters.agent_files import Configuration
from agent_service.adapters.agents import read_agents
from agent_service.adapters.providers import ProviderSettings
from agent_service.domain.agents import AgentFile, AgentList, edit_remedy
from agent_service.settings import ProviderKeys
from fleet.settings import FleetSettings
from service_process.settings import load_settings
from shared_clients.outbound import HttpClient


@dataclass(frozen=True, slots=True)
class FleetAgents:
    """The agents that a fleet starts with, and the access to their models."""

    configuration: Configuration
    providers: ProviderSettings


async def read_fleet_agents(settings: FleetSettings) -> FleetAgents:
    """Read and check the agents, and choose the model for `model: default`.

    Raises:
        Permanent: a file or a setting cannot be used; the message has a line for each mistake.
    """
    keys = load_settings(ProviderKeys)
    providers = ProviderSettings(keys.openai_api_key, keys.openai_base_url)
    configuration = await read_agents(settings.agent_configs, settings.default_agent, providers)
    return FleetAgents(configuration, providers)


def describe_agents(agents: FleetAgents) -> Iterator[str]:
    """Yield lines that name the agents with their models, and where they come from."""
    configuration = agents.configuration
    for file in configuration.agents.current:
        default = ", default" if file.name == configuration.agents.default else ""
        yield f"{file.name} (version {file.version}{default}): {_model_of(file, agents.providers)}"
    yield f"from {configuration.folder}/agents"
    for path in configuration.ignored:
        yield f"ignored: {path} (expected a name that ends in .yaml or .yml)"


async def list_edited_agents(url: str, key: str) -> list[str]:
    """Return a line for each agent file that was edited after it was used, as a running fleet tells it."""
    async with HttpClient(url, headers={"Authorization": f"Bearer {key}"}) as gateway:
        answer = await gateway.call("GET", "/api/v1/agents")
    agents = AgentList.model_validate_json(answer.content).agents
    return [
        f"agent {agent.name}, version {agent.version}: {edit_remedy(agent.name, agent.version)}"
        for agent in agents
        if agent.edited
    ]


def _model_of(file: AgentFile, providers: ProviderSettings) -> str:
    model = file.agent.spec.model
    chosen = file.digest != file.agent.revision
    if model.provider != "scripted":
        where = f" at {providers.openai_base_url}" if providers.openai_base_url else ""
        because = "OPENAI_BASE_URL" if providers.openai_base_url else "OPENAI_API_KEY"
        return f"{model.name} of {model.provider}{where}" + (f", because {because} is set" if chosen else "")
    because = ", because no key of a provider is set" if chosen else ""
    return f"a script (scripts/{model.name}.yaml){because}"

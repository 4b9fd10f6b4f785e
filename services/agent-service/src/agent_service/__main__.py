"""Start agent-service as a process of its own: `python -m agent_service`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from agent_service.adapters.agents import open_agents, read_agents
from agent_service.adapters.providers import ProviderSettings
from agent_service.app import open_app
from agent_service.settings import ProviderKeys, Settings
from service_process.running import run_service
from service_process.settings import Mode, load_settings
from shared_clients.bus.port import Bus
from shared_clients.redis import Redis
from shared_models.services import AGENT_SERVICE


@asynccontextmanager
async def open_with_agents(settings: Settings, bus: Bus, redis: Redis) -> AsyncGenerator[FastAPI]:
    """Read the agents, open their providers, and open the app with them."""
    keys = load_settings(ProviderKeys)
    providers = ProviderSettings(keys.openai_api_key, keys.openai_base_url)
    configuration = await read_agents(
        settings.agent_configs, settings.default_agent, providers, scripted=settings.mode is Mode.DEV
    )
    async with (
        open_agents(configuration, providers) as agents,
        open_app(settings, agents, bus, redis, trusted=settings.trusted()) as app,
    ):
        yield app


if __name__ == "__main__":
    run_service(AGENT_SERVICE, lambda: load_settings(Settings), open_with_agents)

"""How each service behind the gateway is opened in the process of the fleet: one entry for each service."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, TypedDict

from fastapi import FastAPI
from pydantic import SecretStr

import agent_service.app
import request_manager.app
from agent_service.adapters.agents import AgentFolder
from agent_service.settings import Settings as AgentSettings
from request_manager.settings import Settings as RequestSettings
from service_process.settings import Mode, load_settings
from shared_clients.bus.port import Bus
from shared_clients.identity import TrustedKeys
from shared_clients.redis import Redis
from shared_models.services import AGENT_SERVICE, REQUEST_MANAGER


class SharedSettings(TypedDict):
    """The settings that all services of one process share."""

    mode: Mode
    database_url: SecretStr
    bus_url: str
    redis_url: SecretStr


@dataclass(frozen=True, slots=True)
class SharedResources:
    """The objects that every service of one process opens with."""

    settings: SharedSettings
    agents: AgentFolder
    bus: Bus
    redis: Redis
    trusted: TrustedKeys


def _open_request_manager(shared: SharedResources) -> AbstractAsyncContextManager[FastAPI]:
    settings = load_settings(RequestSettings, **shared.settings)
    return request_manager.app.open_app(settings, shared.bus, shared.redis, shared.trusted)


def _open_agent_service(shared: SharedResources) -> AbstractAsyncContextManager[FastAPI]:
    settings = load_settings(AgentSettings, **shared.settings)
    return agent_service.app.open_app(settings, shared.agents, shared.bus, shared.redis, trusted=shared.trusted)


OPENING: Final[Mapping[str, Callable[[SharedResources], AbstractAsyncContextManager[FastAPI]]]] = {
    REQUEST_MANAGER.name: _open_request_manager,
    AGENT_SERVICE.name: _open_agent_service,
}
"""How each service behind the gateway is opened in this process; a test compares the names with the catalogue."""

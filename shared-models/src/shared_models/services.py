"""The catalogue of services: each name, schema, route and port is written here once.

The fleet starts the services that are listed here, and migrates their schemas. The gateway forwards by the routes, and
asks for dead letters. Tokens, events and containers name a service as this catalogue does. Tests compare
`docker-compose.yaml` and the Dockerfile with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One service.

    Attributes:
        name: its folder, image, host name and place in events; other services know it by this name only.
        schema: its schema in Postgres; empty without a database.
        routes: the beginnings of the paths that the gateway forwards to it.
        audience: whether the gateway calls it, with tokens that name it as their audience.
        dead_letters: whether it keeps dead letters, and so has the routes to settle them.
        port: the port on which its container listens.
    """

    name: str
    schema: str = ""
    routes: tuple[str, ...] = ()
    audience: bool = False
    dead_letters: bool = False
    port: int = 8080

    @property
    def package(self) -> str:
        """The Python package of the service."""
        return self.name.replace("-", "_")

    @property
    def url(self) -> str:
        """The base URL of the service's container, where each container has its service's name as its host name."""
        return f"http://{self.name}:{self.port}"


API_GATEWAY: Final = CatalogueEntry("api-gateway", schema="api_gateway")
REQUEST_MANAGER: Final = CatalogueEntry(
    "request-manager", schema="request_manager", routes=("/api/v1/requests",), audience=True, dead_letters=True
)
AGENT_SERVICE: Final = CatalogueEntry(
    "agent-service",
    schema="agent_service",
    routes=("/api/v1/sessions", "/api/v1/agents", "/api/v1/runs"),
    audience=True,
    dead_letters=True,
)
MOCK_EVENTING: Final = CatalogueEntry("mock-eventing")

SERVICES: Final[Mapping[str, CatalogueEntry]] = {
    entry.name: entry for entry in (API_GATEWAY, REQUEST_MANAGER, AGENT_SERVICE, MOCK_EVENTING)
}
"""Every service by its name."""


def audiences() -> frozenset[str]:
    """Return the names of the services that the gateway calls."""
    return frozenset(entry.name for entry in SERVICES.values() if entry.audience)


def schemas() -> Mapping[str, CatalogueEntry]:
    """Return the services that have a schema, by its name."""
    return {entry.schema: entry for entry in SERVICES.values() if entry.schema}


def routes() -> Mapping[str, str]:
    """Return the name of the service behind each part of the API, by the beginning of the path."""
    return {route: entry.name for entry in SERVICES.values() for route in entry.routes}


def dead_letter_services() -> tuple[str, ...]:
    """Return the names of the services that keep dead letters, in alphabetical order."""
    return tuple(sorted(entry.name for entry in SERVICES.values() if entry.dead_letters))

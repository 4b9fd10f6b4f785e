"""The composition root of mock-eventing: it connects settings, adapters, use cases and routes."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from mock_eventing import api
from mock_eventing.adapters.dead_letter_file import DeadLetterFile
from mock_eventing.adapters.subscribers import HttpSubscribers
from mock_eventing.domain.triggers import Triggers, destinations_of, parse_triggers
from mock_eventing.settings import Settings
from mock_eventing.usecases.accept_events import Broker, BrokerLimits
from mock_eventing.usecases.deliver_event import DeliveryDependencies
from service_process.web import BodyLimits, create_app, draining
from shared_clients.errors import Permanent
from shared_models.agents import ConfigError
from shared_models.services import MOCK_EVENTING

NAME: Final = MOCK_EVENTING.name


def load_triggers(path: Path) -> Triggers:
    """Read the file of triggers.

    Raises:
        Permanent: the file cannot be used; the message names each mistake as file:line:column.
    """
    try:
        return parse_triggers(str(path), path.read_text())
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise Permanent(f"FLOTILLA_TRIGGERS cannot be used:\n{error}") from error


@asynccontextmanager
async def open_app(settings: Settings, triggers: Triggers) -> AsyncGenerator[FastAPI]:
    """Open the broker's connections, its file of dead letters and its app, and close them in reverse at the end."""
    async with AsyncExitStack() as stack:
        app = create_app(
            NAME,
            routers=[api.router],
            ready=_ready,
            limits=BodyLimits(body_bytes=settings.body_bytes, json_only=False),
        )
        path = settings.dead_letters
        dependencies = DeliveryDependencies(
            await stack.enter_async_context(HttpSubscribers(destinations_of(triggers), settings.secret)),
            stack.enter_context(DeadLetterFile(path)) if path else None,
            draining(app),
        )
        limits = BrokerLimits(
            settings.accept_seconds, settings.held_bytes, settings.trigger_events, settings.trigger_requests
        )
        broker = Broker(triggers, limits, dependencies)
        app.state.dependencies = api.RouteDependencies(
            broker, settings.secret, settings.body_bytes, settings.trigger_events
        )
        yield app


async def _ready() -> None:
    """Report ready at once: the broker needs no other service, and absent subscribers are retried."""

"""The broker of a fleet whose bus is `http://`: mock-eventing as one more process, with triggers for our own ports.

Of several replicas the first gets the events: a Service would balance them in a cluster, and nothing here needs it,
because replicas share work by claims on their database.
"""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fleet.home import kept_secret
from fleet.settings import own_environment
from fleet.supervisor import Command
from local_backends.server import free_port
from shared_clients.errors import Permanent
from shared_models.triggers import dump_triggers, triggers

VARIABLES: Final = frozenset(
    f"FLOTILLA_{name}"
    for name in (
        *("MODE", "HOST", "PORT", "LOG_LEVEL", "LOG_JSON", "OTLP_ENDPOINT", "TRIGGERS", "EVENTS_SECRET"),
        *("DEAD_LETTERS", "ACCEPT_SECONDS", "BODY_BYTES", "HELD_BYTES", "TRIGGER_EVENTS", "TRIGGER_REQUESTS"),
    )
)
"""The variables that mock-eventing reads; this package does not depend on that one, and a test compares them."""
OWN: Final = "http://"
"""What a fleet is told that is to run a broker itself."""


def own_broker(given: str | None) -> str | None:
    """Return the address of the broker that is to be started; None where the bus is something else.

    Raises:
        Permanent: it names a broker, which does not know where this fleet's services listen.
    """
    if given is None or not given.startswith(OWN):
        return None
    if given != OWN:
        raise Permanent(f"FLOTILLA_BUS_URL has to be {OWN} alone: this fleet starts a broker, and tells it our ports")
    return f"{OWN}127.0.0.1:{free_port()}"


def broker_command(url: str, home: Path, ports: Mapping[str, Sequence[int]], shared: Mapping[str, str]) -> Command:
    """Write the triggers, and return how to start the broker.

    Args:
        url: where it will listen.
        home: gets the file of triggers.
        ports: of each service, those of its replicas.
        shared: the environment of every process.
    """
    file = home / "triggers.yaml"
    documents = triggers(lambda name: f"http://127.0.0.1:{ports[name][0]}/events")
    file.write_text(dump_triggers(documents))
    given = {**shared, "FLOTILLA_PORT": str(urlsplit(url).port), "FLOTILLA_TRIGGERS": str(file)}
    environment = own_environment(given, VARIABLES)
    return Command("mock-eventing-1", "mock_eventing", environment, url)


def events_secret(home: Path) -> dict[str, str]:
    """Return what broker and services know each other by, made the first time."""
    return {"FLOTILLA_EVENTS_SECRET": kept_secret(home / "events-secret", lambda: secrets.token_urlsafe(32))}

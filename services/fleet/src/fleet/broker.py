"""The broker of a fleet whose bus is `http://`: mock-eventing as one more process, with triggers for the fleet's ports.

Of several replicas of a service only the first gets events. In a cluster a Service would balance them; here one
receiver is enough, because all replicas claim work from the same database.
"""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fleet.settings import own_environment
from fleet.state_folder import load_or_make_secret
from fleet.supervisor import Command
from local_backends.server import free_port
from shared_clients.errors import Permanent
from shared_models.services import MOCK_EVENTING
from shared_models.triggers import dump_triggers, triggers

VARIABLES: Final = frozenset(
    f"FLOTILLA_{name}"
    for name in (
        *("MODE", "HOST", "PORT", "LOG_LEVEL", "LOG_JSON", "OTLP_ENDPOINT", "TRIGGERS", "EVENTS_SECRET"),
        *("DEAD_LETTERS", "ACCEPT_SECONDS", "BODY_BYTES", "HELD_BYTES", "TRIGGER_EVENTS", "TRIGGER_REQUESTS"),
    )
)
"""The variables that mock-eventing reads; this package does not depend on that one, and a test compares them."""
OWN_BROKER: Final = "http://"
"""The value of FLOTILLA_BUS_URL which says that the fleet runs a broker itself."""


def own_broker_url(bus_url: str | None) -> str | None:
    """Return the address of the broker that has to be started; None where the bus is another one.

    Raises:
        Permanent: `bus_url` names a broker that runs already: it does not know the ports of this fleet's services.
    """
    if bus_url is None or not bus_url.startswith(OWN_BROKER):
        return None
    if bus_url != OWN_BROKER:
        msg = (
            f"FLOTILLA_BUS_URL has to be {OWN_BROKER} alone: this fleet starts a broker that knows its services' ports"
        )
        raise Permanent(msg)
    return f"{OWN_BROKER}127.0.0.1:{free_port()}"


def broker_command(
    url: str, state_folder: Path, ports: Mapping[str, Sequence[int]], shared: Mapping[str, str]
) -> Command:
    """Write the file of triggers, and return the command that starts the broker.

    Args:
        url: the address at which the broker will listen.
        state_folder: the folder for the file of triggers.
        ports: the ports of each service's replicas, by the name of the service.
        shared: the environment of every process.
    """
    file = state_folder / "triggers.yaml"
    documents = triggers(lambda name: f"http://127.0.0.1:{ports[name][0]}/events")
    file.write_text(dump_triggers(documents))
    given = {**shared, "FLOTILLA_PORT": str(urlsplit(url).port), "FLOTILLA_TRIGGERS": str(file)}
    environment = own_environment(given, VARIABLES)
    return Command(f"{MOCK_EVENTING.name}-1", MOCK_EVENTING.package, environment, url)


def events_secret(state_folder: Path) -> dict[str, str]:
    """Return the secret by which broker and services know each other, made the first time."""
    return {
        "FLOTILLA_EVENTS_SECRET": load_or_make_secret(state_folder / "events-secret", lambda: secrets.token_urlsafe(32))
    }

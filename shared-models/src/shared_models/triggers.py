"""Who gets which events from a broker over HTTP: Knative's Triggers, made from the catalogue of events.

One for each consumer, with the types it reads in every version: what is newer than it reads has to reach its inbox,
which keeps it for the next release, while a broker forgets what no Trigger wants. `flotilla up` writes them for its own
broker; a cluster's are the same documents with other addresses.
"""

from collections.abc import Callable, Iterable
from typing import Final

import yaml
from pydantic import JsonValue

from shared_models.catalog import EVENTS, EventType

DELIVERY: Final[dict[str, JsonValue]] = {
    "retry": 20,
    "backoffPolicy": "exponential",
    "backoffDelay": "PT0.2S",
    "timeout": "PT10S",
}
"""A try is longer than a service holds a request (5 s), and the tries outlast a long outage."""


def triggers(
    address: Callable[[str], str], events: Iterable[EventType] = EVENTS.values(), *, broker: str = "default"
) -> list[JsonValue]:
    """Return the Trigger documents of all consumers, by name.

    Args:
        address: gives the address of a consumer's door for events, `http://…/events`.
        events: those that triggers are made for.
        broker: the name of the broker.
    """
    types: dict[str, set[str]] = {}
    for event in events:
        for consumer in event.consumers:
            types.setdefault(consumer, set()).add(event.name.rpartition(".v")[0] + ".v")
    return [_trigger(name, sorted(wanted), address(name), broker) for name, wanted in sorted(types.items())]


def dump_triggers(documents: Iterable[JsonValue]) -> str:
    """Return documents as one file of YAML."""
    return yaml.safe_dump_all(documents, sort_keys=False)


def _trigger(consumer: str, prefixes: Iterable[str], address: str, broker: str) -> JsonValue:
    wanted: list[JsonValue] = [{"prefix": {"type": prefix}} for prefix in prefixes]
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {"name": consumer},
        "spec": {
            "broker": broker,
            "filters": [{"any": wanted}],
            "subscriber": {"uri": address, "audience": consumer},
            "delivery": dict(DELIVERY),
        },
    }

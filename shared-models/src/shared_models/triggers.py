"""Knative Triggers, made from the catalogue of events: each routes a consumer's events from a broker over HTTP.

There is one Trigger for each consumer, with all versions of the types that it reads. A version that the consumer cannot
read yet has to reach its inbox, which keeps it for the next release; a broker drops events that match no Trigger.
`flotilla up` writes the documents for its own broker. A cluster has the same documents with other addresses.
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
"""One attempt may take longer than a service holds a request (5 s); all attempts together outlast a long outage."""


def triggers(
    address: Callable[[str], str], events: Iterable[EventType] = EVENTS.values(), *, broker: str = "default"
) -> list[JsonValue]:
    """Return the Trigger documents of all consumers, sorted by consumer.

    Args:
        address: returns the address at which a consumer receives events, `http://…/events`.
        events: the event types to route.
        broker: the broker's name.
    """
    types: dict[str, set[str]] = {}
    for event in events:
        for consumer in event.consumers:
            types.setdefault(consumer, set()).add(event.name.rpartition(".v")[0] + ".v")
    return [_trigger(name, sorted(wanted), address(name), broker) for name, wanted in sorted(types.items())]


def dump_triggers(documents: Iterable[JsonValue]) -> str:
    """Return documents as one YAML stream."""
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

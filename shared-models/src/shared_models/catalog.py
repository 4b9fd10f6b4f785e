"""The catalogue of events: all types on the bus, with their producers, consumers, topic and key.

Kafka topics, Knative triggers, the AsyncAPI document and the consumers' subscriptions are made from it. An event type
outside the catalogue does not exist.
"""

from dataclasses import dataclass

from pydantic import BaseModel

from shared_models.requests import RequestCancelled, RequestCreated, ResponseFailed, ResponseReady, RunChanged


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event.

    Attributes:
        name: the CloudEvents type, with its version.
        data: the model of the event's data.
        producers: services that may publish it; consumers check the envelope's `source` against them.
        consumers: services that read it.
        topic: the Kafka topic.
        key: the kind of partition key.
    """

    name: str
    data: type[BaseModel]
    producers: frozenset[str]
    consumers: frozenset[str]
    topic: str
    key: str = "session"

    def may_come_from(self, source: str) -> bool:
        """Return whether a CloudEvents `source` is exactly that of a service that may publish this type."""
        return source in {source_of(producer) for producer in self.producers}


def source_of(service: str) -> str:
    """Return the CloudEvents `source` of the events that a service publishes."""
    return f"/flotilla/{service}"


REQUEST_CREATED = EventType(
    "flotilla.request.created.v1",
    RequestCreated,
    producers=frozenset({"request-manager"}),
    consumers=frozenset({"agent-service"}),
    topic="flotilla.requests",
)
REQUEST_CANCELLED = EventType(
    "flotilla.request.cancelled.v1",
    RequestCancelled,
    producers=frozenset({"request-manager"}),
    consumers=frozenset({"agent-service"}),
    topic="flotilla.requests",
)
RUN_CHANGED = EventType(
    "flotilla.run.changed.v1",
    RunChanged,
    producers=frozenset({"agent-service"}),
    consumers=frozenset({"request-manager"}),
    topic="flotilla.responses",
)
RESPONSE_READY = EventType(
    "flotilla.response.ready.v1",
    ResponseReady,
    producers=frozenset({"agent-service"}),
    consumers=frozenset({"request-manager"}),
    topic="flotilla.responses",
)
RESPONSE_FAILED = EventType(
    "flotilla.response.failed.v1",
    ResponseFailed,
    producers=frozenset({"agent-service"}),
    consumers=frozenset({"request-manager"}),
    topic="flotilla.responses",
)

EVENTS: dict[str, EventType] = {
    event.name: event for event in (REQUEST_CREATED, REQUEST_CANCELLED, RUN_CHANGED, RESPONSE_READY, RESPONSE_FAILED)
}

TOPICS: frozenset[str] = frozenset(event.topic for event in EVENTS.values())


def topics_written_by(producer: str) -> frozenset[str]:
    """Return the topics to which a service publishes."""
    return frozenset(event.topic for event in EVENTS.values() if producer in event.producers)


def topics_of(consumer: str) -> frozenset[str]:
    """Return the topics that a service subscribes to."""
    return frozenset(event.topic for event in EVENTS.values() if consumer in event.consumers)


def topic_of(name: str) -> str:
    """Return the topic of an event type; for an unknown type its own name, so that a message can still be built."""
    return EVENTS[name].topic if name in EVENTS else name

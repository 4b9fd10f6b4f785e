"""The envelope of every event between services: CloudEvents 1.0 with Flotilla's extension attributes.

The envelope is independent of transports: `shared_clients.bus` writes it as Kafka or HTTP headers (binary mode). The
outbox and the inbox store exactly these attributes and bytes. `catalog` lists the event types.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared_models.catalog import EventType, source_of
from shared_models.ids import new_id

MAX_DATA = 262_144
"""Bytes of data in one event, at most."""

AttributeText = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Envelope(BaseModel):
    """One event: attributes as CloudEvents names them, and the data as its JSON bytes.

    Attributes:
        specversion: the version of CloudEvents: 1.0.
        id: the event's name, unique within its source for ever.
        source: the service that published it: `/flotilla/<service>`.
        type: the event type's name, with its version.
        subject: the id of the thing that the event is about.
        time: the time of publication, by the producer's clock.
        datacontenttype: the data's media type.
        partitionkey: events of one key keep their order where the transport can.
        turn: the request's number in its session; consumers order events by it, never by arrival.
        expirytime: the request's deadline.
        traceparent, tracestate: W3C trace context of the work that caused the event.
        tenantid: the organisation.
        correlationid: the request that the event belongs to.
        causationid: the id of the event that caused this one.
        data: at most `MAX_DATA` bytes of JSON.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: str = Field(default="1.0", pattern=r"^1\.0$")
    id: AttributeText
    source: AttributeText
    type: AttributeText
    subject: AttributeText
    time: datetime
    datacontenttype: str = "application/json"
    partitionkey: AttributeText
    turn: int | None = Field(default=None, ge=1)
    expirytime: datetime | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    tenantid: AttributeText
    correlationid: UUID
    causationid: str | None = None
    data: bytes = Field(max_length=MAX_DATA)

    def attributes(self) -> dict[str, str]:
        """Return all attributes that are set, as CloudEvents strings; the data is not among them."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name in type(self).model_fields
            if name != "data" and (value := getattr(self, name)) is not None
        }

    @classmethod
    def parse(cls, attributes: Mapping[str, str], data: bytes) -> Self:
        """Build an envelope from attribute strings and data bytes.

        Raises:
            pydantic.ValidationError: naming each attribute that is missing or malformed.
        """
        return cls.model_validate(
            {"specversion": "", **attributes, "data": data}
        )  # no default: the sender has to give it

    @property
    def context(self) -> "EventContext":
        """The context of an event that follows from this one."""
        return EventContext(self.correlationid, UUID(self.partitionkey), self.tenantid, self.turn, self.expirytime)


@dataclass(frozen=True, slots=True)
class EventContext:
    """The request that an event belongs to.

    Attributes:
        request_id: subject and correlation id.
        session_id: the partition key.
        tenant: the organisation.
        turn: the request's number in its session; None before it has one.
        expires: the request's deadline.
    """

    request_id: UUID
    session_id: UUID
    tenant: str
    turn: int | None = None
    expires: datetime | None = None


def new_event(
    source: str,
    event: EventType,
    data: BaseModel,
    context: EventContext,
    *,
    cause: str | None = None,
    trace: Mapping[str, str] | None = None,
) -> Envelope:
    """Return the envelope of a new event.

    Args:
        source: the service's name, as in `/flotilla/<service>`.
        event: the event's entry in the catalogue.
        data: an instance of the entry's data model.
        context: the request that the event belongs to.
        cause: the id of the event that causes this one, if there is one.
        trace: `traceparent` and `tracestate` of the work in progress.
    """
    trace_context = trace or {}
    return Envelope(
        id=str(new_id()),
        source=source_of(source),
        type=event.name,
        subject=str(context.request_id),
        time=datetime.now(UTC),
        partitionkey=str(context.session_id),
        turn=context.turn,
        expirytime=context.expires,
        tenantid=context.tenant,
        correlationid=context.request_id,
        causationid=cause,
        traceparent=trace_context.get("traceparent"),
        tracestate=trace_context.get("tracestate") or None,
        data=data.model_dump_json(exclude_none=True).encode(),
    )

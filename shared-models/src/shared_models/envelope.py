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
        turn: a request's number in its session; consumers order events by it, never by arrival.
        expirytime: the end of the interest in the subject; a request's deadline.
        traceparent: the W3C trace context of the work that caused the event.
        tracestate: the vendors' part of that trace context.
        tenantid: the organisation.
        correlationid: the request that the event belongs to; unset where it belongs to none.
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
    correlationid: UUID | None = None
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
        return EventContext(
            self.subject, self.partitionkey, self.tenantid, self.turn, self.expirytime, self.correlationid, self.id
        )

    @property
    def request_id(self) -> UUID:
        """The request that the event belongs to.

        Raises:
            ValueError: it belongs to none.
        """
        return self.context.request_id


@dataclass(frozen=True, slots=True)
class EventContext:
    """What an event is about: a request, an agent, a token, or anything else with an id.

    Attributes:
        subject: the id of the thing that the event is about.
        key: the partition key: events of one key keep their order where the transport can.
        tenant: the organisation.
        turn: a request's number in its session; None before it has one, and for everything else.
        expires: when the subject is no longer wanted; a request's deadline.
        correlation: the request that the event belongs to; None where it belongs to none.
        cause: the id of the event that led here.
    """

    subject: str
    key: str
    tenant: str
    turn: int | None = None
    expires: datetime | None = None
    correlation: UUID | None = None
    cause: str | None = None

    @classmethod
    def of_request(
        cls, request_id: UUID, session_id: UUID, tenant: str, turn: int | None = None, expires: datetime | None = None
    ) -> Self:
        """Return the context of events about a request, whose key is the request's session."""
        return cls(str(request_id), str(session_id), tenant, turn, expires, request_id)

    @property
    def request_id(self) -> UUID:
        """The request that the event belongs to.

        Raises:
            ValueError: it belongs to none.
        """
        if self.correlation is None:
            msg = f"the event about {self.subject} belongs to no request: it has no correlationid"
            raise ValueError(msg)
        return self.correlation

    @property
    def session_id(self) -> UUID:
        """The session of the request.

        Raises:
            ValueError: the key is no session's id.
        """
        return UUID(self.key)


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
        context: what the event is about.
        cause: the id of the event that causes this one; by default that of the context.
        trace: `traceparent` and `tracestate` of the work in progress.
    """
    trace_context = trace or {}
    return Envelope(
        id=str(new_id()),
        source=source_of(source),
        type=event.name,
        subject=context.subject,
        time=datetime.now(UTC),
        partitionkey=context.key,
        turn=context.turn,
        expirytime=context.expires,
        tenantid=context.tenant,
        correlationid=context.correlation,
        causationid=cause or context.cause,
        traceparent=trace_context.get("traceparent"),
        tracestate=trace_context.get("tracestate") or None,
        data=data.model_dump_json(exclude_none=True).encode(),
    )

"""The envelope of every event between services: CloudEvents 1.0 with Flotilla's extension attributes.

It says nothing about a transport: `shared_clients.bus` writes it as Kafka headers or HTTP headers (binary mode), and
the outbox and the inbox keep exactly these attributes and bytes. Which types exist is in `catalog`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared_models.catalog import EventType
from shared_models.ids import new_id

MAX_DATA = 262_144
"""Bytes of data in one event; larger content is a reference."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Envelope(BaseModel):
    """One event: attributes as CloudEvents names them, and the data as its JSON bytes.

    Attributes:
        specversion: of CloudEvents: 1.0.
        id: names the event within its source, for ever.
        source: who wrote it: `/flotilla/<service>`.
        type: what it says, with its version.
        subject: the id of what it is about.
        time: when it was written, by its producer's clock.
        datacontenttype: the data's media type.
        partitionkey: events of one key keep their order where the transport can.
        turn: the request's number in its session; consumers order by it, never by arrival.
        expirytime: when the request's deadline passes.
        traceparent, tracestate: W3C trace context of the work that led here.
        tenantid: the organisation.
        correlationid: the request that everything belongs to.
        causationid: the event that led here.
        data: at most `MAX_DATA` bytes of JSON.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: str = Field(default="1.0", pattern=r"^1\.0$")
    id: Text
    source: Text
    type: Text
    subject: Text
    time: datetime
    datacontenttype: str = "application/json"
    partitionkey: Text
    turn: int | None = Field(default=None, ge=1)
    expirytime: datetime | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    tenantid: Text
    correlationid: UUID
    causationid: str | None = None
    data: bytes = Field(max_length=MAX_DATA)

    def attributes(self) -> dict[str, str]:
        """Return the context attributes as CloudEvents strings, without those that are unset and without the data."""
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
        return cls.model_validate({"specversion": "", **attributes, "data": data})  # said by the sender, or missing

    @property
    def context(self) -> "EventContext":
        """The context to give to an event that follows from this one."""
        return EventContext(self.correlationid, UUID(self.partitionkey), self.tenantid, self.turn, self.expirytime)


@dataclass(frozen=True, slots=True)
class EventContext:
    """The request that an event belongs to.

    Attributes:
        request_id: subject and correlation id.
        session_id: the partition key.
        tenant: the organisation.
        turn: the request's number in its session, where it is known already.
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
    """Make the envelope of a fresh event.

    Args:
        source: the service's name, as in `/flotilla/<service>`.
        event: its entry in the catalogue.
        data: its data model.
        context: the request that the event belongs to.
        cause: the id of the event being handled, if one is.
        trace: `traceparent` and `tracestate` to carry on.
    """
    carried = trace or {}
    return Envelope(
        id=str(new_id()),
        source=f"/flotilla/{source}",
        type=event.name,
        subject=str(context.request_id),
        time=datetime.now(UTC),
        partitionkey=str(context.session_id),
        turn=context.turn,
        expirytime=context.expires,
        tenantid=context.tenant,
        correlationid=context.request_id,
        causationid=cause,
        traceparent=carried.get("traceparent"),
        tracestate=carried.get("tracestate") or None,
        data=data.model_dump_json(exclude_none=True).encode(),
    )

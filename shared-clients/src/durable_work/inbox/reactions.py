"""The interface between the inbox and a service's handlers: one reaction for each type of event."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from durable_work.inbox.outcomes import NewerVersion, NotBelieved
from shared_clients.errors import Permanent
from shared_clients.postgres import Tx
from shared_models.catalog import SESSION, EventType
from shared_models.envelope import Envelope
from shared_models.requests import Principal


@dataclass(frozen=True, slots=True)
class Reaction:
    """The handlers of a consumer for one type of event.

    Attributes:
        event: the type's entry in the catalogue.
        react: changes the consumer's rows in the given transaction. It must give the same result in any order of
            events, and if the consumer's row exists already.
        on_dead: called in the transaction that marks such an event dead, to free the rows that wait for the event.
    """

    event: EventType
    react: Callable[[Tx, Envelope, Any], Awaitable[None]]
    on_dead: Callable[[Tx, Envelope, str], Awaitable[None]] | None = None


def parse_data(reaction: Reaction, event: Envelope) -> BaseModel:
    """Return an event's data in the type that its reaction expects.

    Raises:
        NewerVersion: the data has a member that only a later release knows.
        Permanent: the data does not fit the type.
        NotBelieved: the principal in the data is of another tenant than the event, or the event names no request
            although its type is about one.
    """
    try:
        data = reaction.event.data.model_validate_json(event.data)
    except ValidationError as error:
        if any(fault["type"] in {"union_tag_invalid", "literal_error", "enum"} for fault in error.errors()):
            msg = f"{reaction.event.name} has a member that this release does not know: {describe_faults(error)}"
            raise NewerVersion(msg) from error
        msg = f"the data of {reaction.event.name} is not as agreed: {describe_faults(error)}"
        raise Permanent(msg) from error
    if reaction.event.key == SESSION and event.correlationid is None:
        msg = f"{reaction.event.name} is about a request, and the event names none: correlationid is missing"
        raise NotBelieved(msg)
    principal = getattr(data, "principal", None)
    if isinstance(principal, Principal) and principal.tenant != event.tenantid:
        msg = f"the principal of the event is of another tenant than the event ({event.tenantid[:100]})"
        raise NotBelieved(msg)
    return data


def type_family(event_type: str) -> str:
    """Return a type without its version: `flotilla.request.created` of `flotilla.request.created.v1`."""
    return event_type.rpartition(".v")[0]


def describe_faults(error: ValidationError) -> str:
    """Return where an event is wrong, without the values it holds."""
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5])

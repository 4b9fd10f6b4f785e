"""The interface between the inbox and a service's handlers: one reaction for each type of event."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from durable_work.inbox.outcomes import NewerVersion
from shared_clients.errors import Permanent
from shared_clients.postgres import Tx
from shared_models.catalog import EventType
from shared_models.envelope import Envelope


@dataclass(frozen=True, slots=True)
class Reaction:
    """The handlers of a consumer for one type of event.

    Attributes:
        event: the type's entry in the catalogue.
        react: changes the consumer's rows in the given transaction. It must be right in whatever order events come, and
            where its row exists already.
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
    """
    try:
        return reaction.event.data.model_validate_json(event.data)
    except ValidationError as error:
        if any(fault["type"] in {"union_tag_invalid", "literal_error", "enum"} for fault in error.errors()):
            msg = f"{reaction.event.name} has a member that this release does not know: {describe_faults(error)}"
            raise NewerVersion(msg) from error
        msg = f"the data of {reaction.event.name} is not as agreed: {describe_faults(error)}"
        raise Permanent(msg) from error


def type_family(event_type: str) -> str:
    """Return a type without its version: `flotilla.request.created` of `flotilla.request.created.v1`."""
    return event_type.rpartition(".v")[0]


def describe_faults(error: ValidationError) -> str:
    """Return where an event is wrong, without the values it holds."""
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5])

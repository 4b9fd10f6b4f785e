"""The outcomes of one delivery, and the rules that turn a failure into an outcome.

A delivery is one try to handle an event: of a message from the bus, or of the bytes of a parked row. The rules are pure
functions, so that tests and readers need no database for them.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from shared_clients.errors import Permanent, Unconfirmed

MAX_ATTEMPTS: Final = 8
"""Tries of an event whose handling fails; with the pauses between them they take about ten minutes."""
MAX_VERSION_WAIT: Final = timedelta(hours=24)
"""How long an event of a newer version waits for the release that can read it."""
VERSION_PAUSE: Final = timedelta(minutes=5)
"""The first pause of an event of a newer version."""
MAX_PAUSE: Final = timedelta(minutes=5)


class NewerVersion(Exception):  # noqa: N818 - an outcome
    """The event has a known type in a version or shape that only a later release reads."""


@dataclass(frozen=True, slots=True)
class Done:
    """The effect and the inbox row are committed together."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The event has its row already, so this delivery changes nothing."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """This consumer reads no version of the event's type, so the event gets no row."""


@dataclass(frozen=True, slots=True)
class Parked:
    """The event cannot be handled now, and is tried again after a pause."""

    reason: str
    pause: timedelta


@dataclass(frozen=True, slots=True)
class Dead:
    """The event can never be handled, or has used up its tries."""

    reason: str


@dataclass(frozen=True, slots=True)
class Untrusted:
    """The event's source may not publish its type, so nothing that the event says is believed."""

    reason: str


type Outcome = Done | Duplicate | Ignored | Parked | Dead | Untrusted


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """The row of a delivery that is a retry.

    Attributes:
        source, id: the row's key, beside the consumer.
        attempts: tries of the event, with this one.
        age: how long ago the event came.
    """

    source: str
    id: str
    attempts: int
    age: timedelta


def outcome_of_failure(error: Exception, row: ParkedRow | None) -> Parked | Dead:
    """Return the outcome of a delivery whose handling raised an error.

    Args:
        error: the error.
        row: the parked row of a retry; None for a message from the bus.
    """
    reason = describe_error(error)
    match error:
        case Permanent():
            return Dead(reason)
        case NewerVersion() if row is not None and row.age > MAX_VERSION_WAIT:
            return Dead(reason)
        case NewerVersion():
            return Parked(reason, pause_after(row) if row is not None else VERSION_PAUSE)
        case _ if row is not None and row.attempts >= MAX_ATTEMPTS:
            return Dead(reason)
        case _:
            return Parked(reason, pause_after(row))


def pause_after(row: ParkedRow | None) -> timedelta:
    """Return the pause before the next try: one second after the first, and longer after each further one."""
    return min(MAX_PAUSE, timedelta(seconds=2 ** min(row.attempts, 10) if row else 1))


def describe_error(error: Exception) -> str:
    """Return the reason to store; the reason for a bug begins with the error's type."""
    return f"{type(error).__name__}: {error}" if is_bug(error) else str(error)


def is_bug(error: Exception) -> bool:
    """Return whether an error is none of those that a consumer raises on purpose."""
    return not isinstance(error, (Permanent, Unconfirmed, NewerVersion))

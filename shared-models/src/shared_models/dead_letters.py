"""Dead letters: events that a service could not handle or publish, in the types that operators and services exchange.

Each service stores its own letters; the gateway merges them into one list. A letter belongs to its event's tenant. A
letter whose event cannot be read has the tenant "", and only operators of the whole fleet see it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StringConstraints

from shared_models.requests import ClosedModel, OpenModel

OPERATE: Final = "operate"
"""The scope for reading and settling the dead letters of the caller's own tenant."""
OPERATE_FLEET: Final = "operate:fleet"
"""The additional scope for letters that belong to no tenant."""
READ_CONTENT: Final = "content:read"
"""The additional scope for an event's headers and bytes, which contain people's texts."""

PAGE: Final = 50
"""Letters on one page, or in one batch of replays, where the caller names no number."""
MOST: Final = 200
"""Letters on one page, or in one batch of replays, at most."""

_ID: Final = re.compile(r"([a-z][a-z-]{0,62})\.(in|out)\.([0-9a-f]{32})")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d")
_CURSOR: Final = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]{8,15}Z)_(\S+)")

Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]
EventName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,62}$")]
Letters = Literal["dead", "parked"]
"""The state of a letter: `dead`, or `parked` while the service itself retries the event, as after a replay."""


def parse_cursor(cursor: str) -> tuple[datetime, str]:
    """Return the time and the letter id after which a page begins.

    Raises:
        ValueError: the text is not the `next` of a page.
    """
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        msg = "expected the `next` of an earlier page"
        raise ValueError(msg)
    return datetime.fromisoformat(match[1]), match[2]


def _checked(cursor: str) -> str:
    parse_cursor(cursor)
    return cursor


def _require_rfc3339(moment: object) -> object:
    """Accept only RFC 3339 texts; pydantic alone would read a number as seconds since 1970."""
    if isinstance(moment, datetime) or (isinstance(moment, str) and _DATE.match(moment)):
        return moment
    msg = "expected a time with its zone, such as 2026-11-21T09:00:00Z"
    raise ValueError(msg)


Moment = Annotated[AwareDatetime, BeforeValidator(_require_rfc3339)]
Before = Annotated[str, StringConstraints(max_length=300), AfterValidator(_checked)]


class LetterContent(OpenModel):
    """An event's original attributes, and its data in Base64, as in CloudEvents' JSON format."""

    attributes: dict[str, str]
    data_base64: str


class DeadLetter(OpenModel):
    """One event that needs an operator's decision.

    Attributes:
        id: a stable id; an event that is dead-lettered again has the same id.
        service: the service that stores it: the consumer of an `inbox` letter, the producer of an `outbox` letter.
        tenant: the event's tenant; "" where the event cannot be read.
        subject, correlation_id: the event's attributes.
        reason: the reason why it is dead or parked.
        attempts: attempts since it arrived, or since its last replay.
        first_seen, died_at: the times of its arrival and of its death; a parked letter may have no death.
        size: bytes of the event's data.
        malformed: whether the event is unreadable, so that it cannot be replayed.
        content: the event itself, only where it was requested.
    """

    id: str
    service: str
    box: Literal["inbox", "outbox"]
    state: Letters
    type: str
    source: str
    event_id: str
    tenant: str
    subject: str | None = None
    correlation_id: str | None = None
    reason: str
    attempts: int
    first_seen: datetime
    died_at: datetime | None = None
    size: int
    malformed: bool
    content: LetterContent | None = None

    @property
    def place(self) -> tuple[datetime, str]:
        """Sort key in a list, in which the latest death comes first."""
        return self.died_at or self.first_seen, self.id

    @property
    def cursor(self) -> str:
        moment, letter = self.place
        return f"{moment.astimezone(UTC).isoformat().replace('+00:00', 'Z')}_{letter}"


class DeadLetterPage(OpenModel):
    """The response to `GET /api/v1/dead-letters`; `next` is the `before` of the next page."""

    letters: tuple[DeadLetter, ...]
    next: str | None = None


class LetterFilter(ClosedModel):
    """A selection of letters: the body of `POST /api/v1/dead-letters/replay`, which replays one batch at a time.

    Attributes:
        since: selects letters that died at this time or later.
        before: the `next` of the previous page or batch.
    """

    service: ServiceName | None = None
    type: EventName | None = None
    since: Moment | None = None
    before: Before | None = None
    limit: Annotated[int, Field(ge=1, le=MOST)] = PAGE


class LetterQuery(LetterFilter):
    """The gateway's query to a service; its limit is one above the page size, to see whether more letters exist."""

    state: Letters = "dead"
    limit: Annotated[int, Field(ge=1, le=MOST + 1)] = PAGE

    @classmethod
    def of(cls, wanted: LetterFilter, state: Letters = "dead") -> Self:
        return cls.model_validate({**wanted.model_dump(), "limit": wanted.limit + 1, "state": state})


class Discard(ClosedModel):
    """The body of `POST /api/v1/dead-letters/{id}/discard`."""

    reason: Reason


class Settled(OpenModel):
    """The outcome of a decision about a letter.

    Attributes:
        outcome: `replayed`: the event is retried, or a new request replaces the event's request; `discarded`: the
            letter is closed. `needs_request` exists only between services: nothing has changed, and `request_id` has to
            be retried.
        request_id: the new request, if the event was a request; with `needs_request`, the failed request that has to be
            retried.
    """

    id: str
    outcome: Literal["replayed", "discarded", "needs_request"]
    request_id: UUID | None = None


class Replay(ClosedModel):
    """The body of a replay between services; `request_id` is the new request, once one is accepted for the letter."""

    request_id: UUID | None = None


class RetryRequest(ClosedModel):
    """Between services: the failed request that is to be retried."""

    request_id: UUID


class Retried(OpenModel):
    """Between services: the new request of a retry."""

    request_id: UUID


class NotReplayed(OpenModel):
    """A letter of a batch that was not replayed, and the reason."""

    id: str
    detail: str


class ReplayedBatch(OpenModel):
    """The response to `POST /api/v1/dead-letters/replay`; `next` is the `before` of the next batch."""

    replayed: int
    requests: tuple[UUID, ...] = ()
    refused: tuple[NotReplayed, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class LetterId:
    """The parts of a letter's id.

    Attributes:
        service: the service that keeps the letter.
        table: the table of the letter's row: `in` for the inbox, `out` for the outbox.
        key: the hash of the row's key.
    """

    service: str
    table: str
    key: str


def parse_letter_id(letter: str) -> LetterId | None:
    """Return the parts of a letter's id; None where the text is no such id."""
    match = _ID.fullmatch(letter)
    return None if match is None else LetterId(match[1], match[2], match[3])

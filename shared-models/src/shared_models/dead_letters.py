"""Dead letters: events that a service could not handle or publish, as operators see them and deal with them.

Each service keeps its own; the gateway puts them together. A letter belongs to its event's tenant; one whose event
cannot even be read belongs to nobody (tenant ""), and is seen by those who operate the whole fleet.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StringConstraints

from shared_models.requests import ClosedModel, OpenModel

OPERATE: Final = "operate"
"""The scope that seeing and settling one's own tenant's dead letters needs."""
OPERATE_FLEET: Final = "operate:fleet"
"""The further scope for letters that belong to no tenant."""
READ_CONTENT: Final = "content:read"
"""The further scope for an event's headers and bytes, which hold what people wrote."""

PAGE: Final = 50
MOST: Final = 200
"""Letters on one page, and in one batch of replays."""

_ID: Final = re.compile(r"([a-z][a-z-]{0,62})\.(in|out)\.([0-9a-f]{32})")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d")
_CURSOR: Final = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]{8,15}Z)_(\S+)")

Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]
EventName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,62}$")]
Letters = Literal["dead", "parked"]
"""Which letters: dead ones, or events that are tried again by themselves, those replayed among them."""


def parse_cursor(cursor: str) -> tuple[datetime, str]:
    """Return the moment and the letter behind which a page goes on.

    Raises:
        ValueError: it is no `next` of any page.
    """
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        msg = "expected the `next` of an earlier page"
        raise ValueError(msg)
    return datetime.fromisoformat(match[1]), match[2]


def _checked(cursor: str) -> str:
    parse_cursor(cursor)
    return cursor


def _written(moment: object) -> object:
    """Let pass what is written as RFC 3339 has it; pydantic alone would take numbers for seconds since 1970."""
    if isinstance(moment, datetime) or (isinstance(moment, str) and _DATE.match(moment)):
        return moment
    msg = "expected a time with its zone, such as 2026-11-21T09:00:00Z"
    raise ValueError(msg)


Moment = Annotated[AwareDatetime, BeforeValidator(_written)]
Before = Annotated[str, StringConstraints(max_length=300), AfterValidator(_checked)]


class LetterContent(OpenModel):
    """An event as it came: its attributes, and its data in Base64, as CloudEvents' JSON format has it."""

    attributes: dict[str, str]
    data_base64: str


class DeadLetter(OpenModel):
    """One event that needs somebody's decision.

    Attributes:
        id: stable; the same event that dies again has the same.
        service: which service keeps it: the consumer of an `inbox` letter, the producer of an `outbox` one.
        tenant: whose it is; "" where its event cannot be read.
        subject, correlation_id: as the event says.
        reason: why it is dead, or why it is parked.
        attempts: tries since it came, or since it was last replayed.
        first_seen, died_at: when it came; when it was given up, which a parked one may never have been.
        size: bytes of its data.
        malformed: it is no event that could be tried again.
        content: only where it was asked for.
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
        """Where it stands in a list: the last that died comes first."""
        return self.died_at or self.first_seen, self.id

    @property
    def cursor(self) -> str:
        moment, letter = self.place
        return f"{moment.astimezone(UTC).isoformat().replace('+00:00', 'Z')}_{letter}"


class DeadLetterPage(OpenModel):
    """The body of `GET /api/v1/dead-letters`; `next` is the `before` of the page that follows."""

    letters: tuple[DeadLetter, ...]
    next: str | None = None


class LetterFilter(ClosedModel):
    """Which letters are meant: the body of `POST /api/v1/dead-letters/replay`, which takes one batch at a time.

    Attributes:
        since: those that died at this moment or later.
        before: the `next` of the page or batch before.
    """

    service: ServiceName | None = None
    type: EventName | None = None
    since: Moment | None = None
    before: Before | None = None
    limit: Annotated[int, Field(ge=1, le=MOST)] = PAGE


class LetterQuery(LetterFilter):
    """What the gateway asks a service for: one letter more than fits, to know whether there are more."""

    state: Letters = "dead"
    limit: Annotated[int, Field(ge=1, le=MOST + 1)] = PAGE

    @classmethod
    def of(cls, wanted: LetterFilter, state: Letters = "dead") -> Self:
        return cls.model_validate({**wanted.model_dump(), "limit": wanted.limit + 1, "state": state})


class Discard(ClosedModel):
    """The body of `POST /api/v1/dead-letters/{id}/discard`."""

    reason: Reason


class Settled(OpenModel):
    """What became of a letter.

    Attributes:
        outcome: `replayed`: it is tried again, or is a new request; `discarded`: it is given up. `needs_request` is
            between services: nothing has changed, and `request_id` is the request that has to be asked anew.
        request_id: the new request, where the letter was one.
    """

    id: str
    outcome: Literal["replayed", "discarded", "needs_request"]
    request_id: UUID | None = None


class Replay(ClosedModel):
    """The body of a replay between services; `request_id` is the new request, once one is accepted for the letter."""

    request_id: UUID | None = None


class RetryRequest(ClosedModel):
    """Between services: the failed request that has to be asked anew."""

    request_id: UUID


class Retried(OpenModel):
    """Between services: the new request."""

    request_id: UUID


class NotReplayed(OpenModel):
    """A letter of a batch that stays as it is, and why."""

    id: str
    detail: str


class ReplayedBatch(OpenModel):
    """The body that answers `POST /api/v1/dead-letters/replay`; `next` is the `before` of the batch that follows."""

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

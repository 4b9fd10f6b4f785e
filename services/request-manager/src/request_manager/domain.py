"""Pure decisions about a request: its normal form before it is stored, its owner, its links and its ETag.

`api` normalises a body into a `RequestDraft`. `usecases.accept_request` stores the draft and returns an
`AcceptOutcome`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from shared_models.ids import new_id
from shared_models.principals import Caller, Person
from shared_models.requests import Links, NewRequest, Principal, RequestView, Status


@dataclass(frozen=True, slots=True)
class RequestDraft:
    """A normalised request that may be accepted.

    Attributes:
        request_id, session_id: the ids that the answer and the rows will have.
        opens_session: whether the session may be new: the body names none, or the signed identity vouches for it.
        owner: the person who may see the session, through any credential.
        caller: the credential and person within which an Idempotency-Key is unique.
        content: all text parts as one text.
        idempotency_key: the Idempotency-Key; None without one.
        body_hash: the hash of the body that the Idempotency-Key is used with; empty without a key.
        retry_of: the failed request that this one replaces.
        after_turn: the turn that this one follows, where that is not the turn before it; 0 is the beginning.
    """

    request_id: UUID
    session_id: UUID
    opens_session: bool
    owner: Person
    caller: Caller
    principal: Principal
    content: str
    agent: str | None
    metadata: dict[str, str]
    idempotency_key: str | None
    body_hash: bytes
    expires_at: datetime
    retry_of: UUID | None
    after_turn: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a request among the turns of its session.

    Attributes:
        after_turn: the turn that it follows, where that is not the turn before it.
    """

    session_id: UUID
    turn: int
    after_turn: int | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is durable; `turn` is its number in its session."""

    request_id: UUID
    session_id: UUID
    turn: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """The same Idempotency-Key was accepted before with the same body; the ids are those of the first request."""

    request_id: UUID
    session_id: UUID


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The Idempotency-Key was used before with another body."""


@dataclass(frozen=True, slots=True)
class UnknownSession:
    """The session does not exist or has another owner; the caller may not learn which of the two."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The request's event would be larger than an event may be; `size` is in bytes."""

    size: int


AcceptOutcome = Accepted | Replayed | KeyReused | UnknownSession | TooLarge


@dataclass(frozen=True, slots=True)
class UnknownRequest:
    """The tenant has no such request."""


@dataclass(frozen=True, slots=True)
class NotFailed:
    """The request has not failed, so there is nothing to retry."""

    status: Status


RetryOutcome = AcceptOutcome | UnknownRequest | NotFailed


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A stored request with everything that a retry copies from it.

    Attributes:
        place: the retry takes the same place, so that an agent reads the question once.
        retried_as: the request that replaces this one already; None where there is none.
    """

    place: Place
    status: Status
    principal: Principal
    content: str
    agent: str | None
    metadata: dict[str, str]
    retried_as: UUID | None


@dataclass(frozen=True, slots=True)
class SilentRequest:
    """A pending request whose next event from agent-service is overdue.

    Attributes:
        principal: as it was stored, and not validated yet.
        cancel_requested: whether the owner has asked for a cancellation.
    """

    tenant: str
    request_id: UUID
    session_id: UUID
    turn: int
    principal: Mapping[str, object]
    content: str
    agent: str | None
    metadata: dict[str, str]
    expires_at: datetime
    cancel_requested: bool
    after_turn: int | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """Numbers of requests, counted in one snapshot of the database.

    Attributes:
        accepted: turns that sessions have given out.
        terminal, pending: stored requests that have ended, and that have not.
        overdue: pending requests whose deadline has passed a while ago.
    """

    accepted: int
    terminal: int
    pending: int
    overdue: int

    @property
    def unaccounted(self) -> int:
        """Accepted requests without a row: any number but 0 is a loss."""
        return self.accepted - self.terminal - self.pending


def normalise(
    body: NewRequest,
    principal: Principal,
    vouched_sessions: frozenset[UUID],
    *,
    idempotency_key: str | None,
    lifetime: timedelta,
    retry_of: UUID | None = None,
    after_turn: int | None = None,
) -> RequestDraft:
    """Return the draft of a request: its ids, owner, text and deadline.

    Args:
        body: the validated body.
        principal: the caller.
        vouched_sessions: sessions that the caller's signed identity vouches for.
        idempotency_key: the Idempotency-Key.
        lifetime: time from now to the request's deadline.
        retry_of: the failed request that this one replaces.
        after_turn: the turn that it follows, where the body names one; see `turn_before`.
    """
    content = body.content if isinstance(body.content, str) else "\n\n".join(part.text for part in body.content)
    return RequestDraft(
        request_id=new_id(),
        session_id=body.session_id or new_id(),
        opens_session=body.session_id is None or body.session_id in vouched_sessions,
        owner=principal.person,
        caller=principal.caller,
        principal=principal,
        content=content,
        agent=body.agent,
        metadata=body.metadata,
        idempotency_key=idempotency_key,
        body_hash=_body_hash(body) if idempotency_key else b"",
        expires_at=datetime.now(UTC) + lifetime,
        retry_of=retry_of,
        after_turn=after_turn,
    )


def turn_before(body: NewRequest, named: Place) -> int:
    """Return the turn that a request follows whose body names another one, at `named`."""
    if body.after is not None:
        return named.turn
    return named.turn - 1 if named.after_turn is None else named.after_turn


def _body_hash(body: NewRequest) -> bytes:
    """Return a hash that is equal for equal bodies; the order of `metadata` members does not count.

    Members that came later are left out where they are unset, so that a key holds across an upgrade.
    """
    ordered = body.model_copy(update={"metadata": dict(sorted(body.metadata.items()))})
    unset = {name for name in ("instead_of", "after") if getattr(body, name) is None}
    return hashlib.sha256(ordered.model_dump_json(exclude=unset).encode()).digest()


def links_of(request_id: UUID) -> Links:
    path = f"/api/v1/requests/{request_id}"
    return Links(self=path, status=f"{path}/status", result=f"{path}/result", stream=f"/chat/{request_id}")


def etag_of(view: RequestView) -> str:
    """Return a strong ETag, which changes with any member of the view."""
    return f'"{hashlib.sha256(view.model_dump_json().encode()).hexdigest()[:32]}"'

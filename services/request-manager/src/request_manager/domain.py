"""What a request is before anything is stored: normalised, owned, named. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from shared_models.ids import new_id
from shared_models.requests import Links, NewRequest, Principal, RequestView, Status


@dataclass(frozen=True, slots=True)
class Draft:
    """A request that may be accepted.

    Attributes:
        request_id, session_id: as they will be answered.
        opens_session: whether the session may be unknown yet: it is new, or a trusted caller vouches for it.
        owner: who may see the session; the same person through whichever credential.
        caller: whose Idempotency-Keys these are: (credential, person).
        content: one text, normalised.
        key, body_hash: the Idempotency-Key, and what it was used with.
        retry_of: the failed request that this one is asked in place of.
    """

    request_id: UUID
    session_id: UUID
    opens_session: bool
    owner: str
    caller: str
    principal: Principal
    content: str
    agent: str | None
    metadata: dict[str, str]
    key: str | None
    body_hash: bytes
    expires_at: datetime
    retry_of: UUID | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is durable: `turn` is its number in its session."""

    request_id: UUID
    session_id: UUID
    turn: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """The same key with the same body was accepted before: these are the ids of then."""

    request_id: UUID
    session_id: UUID


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The key was used before with another body."""


@dataclass(frozen=True, slots=True)
class UnknownSession:
    """The session does not exist, or is somebody else's: the caller may not learn which."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The event would be larger than an event may be."""

    size: int


Outcome = Accepted | Replayed | KeyReused | UnknownSession | TooLarge


@dataclass(frozen=True, slots=True)
class UnknownRequest:
    """There is no such request in this tenant."""


@dataclass(frozen=True, slots=True)
class NotFailed:
    """The request has not failed, so nothing is to be asked again."""

    status: Status


@dataclass(frozen=True, slots=True)
class EndedRequest:
    """A request as it may be asked again.

    Attributes:
        retried_as: the request that was asked in its place already.
    """

    session_id: UUID
    status: Status
    principal: Principal
    content: str
    agent: str | None
    metadata: dict[str, str]
    retried_as: UUID | None


@dataclass(frozen=True, slots=True)
class SilentRequest:
    """A request of which nothing is heard when something should be.

    Attributes:
        principal: as it was stored, to be validated by who reads the event.
        cancel_asked: somebody has asked to stop it meanwhile.
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
    cancel_asked: bool


@dataclass(frozen=True, slots=True)
class Balance:
    """How many requests there are, counted at one moment.

    Attributes:
        accepted: turns that were given.
        terminal, pending: requests that have ended, and that have not.
        overdue: of the pending ones, those whose deadline has passed a while ago.
    """

    accepted: int
    terminal: int
    pending: int
    overdue: int

    @property
    def unaccounted(self) -> int:
        """Requests that were accepted and are not there: anything but 0 is a loss."""
        return self.accepted - self.terminal - self.pending


def owner_of(principal: Principal) -> str:
    return f"{principal.issuer}|{principal.subject}"


def caller_of(principal: Principal) -> str:
    return f"{principal.credential}|{owner_of(principal)}"


def normalise(
    body: NewRequest, principal: Principal, vouched: frozenset[UUID], *, key: str | None, lifetime: timedelta
) -> Draft:
    """Turn what a caller sent into what is stored.

    Args:
        body: the validated body.
        principal: who asks.
        vouched: sessions that the signed identity vouches for.
        key: the Idempotency-Key.
        lifetime: from now to the request's deadline.
    """
    content = body.content if isinstance(body.content, str) else "\n\n".join(part.text for part in body.content)
    return Draft(
        request_id=new_id(),
        session_id=body.session_id or new_id(),
        opens_session=body.session_id is None or body.session_id in vouched,
        owner=owner_of(principal),
        caller=caller_of(principal),
        principal=principal,
        content=content,
        agent=body.agent,
        metadata=body.metadata,
        key=key,
        body_hash=_hash_of(body) if key else b"",
        expires_at=datetime.now(UTC) + lifetime,
    )


def _hash_of(body: NewRequest) -> bytes:
    """Return what bodies have in common that say the same; the order of an object's members says nothing."""
    ordered = body.model_copy(update={"metadata": dict(sorted(body.metadata.items()))})
    return hashlib.sha256(ordered.model_dump_json().encode()).digest()


def links_of(request_id: UUID) -> Links:
    path = f"/api/v1/requests/{request_id}"
    return Links(self=path, status=f"{path}/status", result=f"{path}/result", stream=f"/chat/{request_id}")


def tag_of(view: RequestView) -> str:
    """Return a strong ETag: it changes when anything of the view does."""
    return f'"{hashlib.sha256(view.model_dump_json().encode()).hexdigest()[:32]}"'

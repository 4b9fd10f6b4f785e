"""Runs: the work on one request, how it ends, and what its owner sees of it. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from shared_models.envelope import EventContext
from shared_models.frames import Cursor
from shared_models.requests import (
    Failure,
    FailureReason,
    Principal,
    RequestView,
    Response,
    ResponseFailed,
    ResponseReady,
    Status,
    Truncation,
    Usage,
)

MAX_TRIES = 5
"""How often a run is started before it counts as poison: something in it kills its workers."""
TITLE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class NewRun:
    """A request as agent-service first hears of it."""

    tenant: str
    execution_id: UUID
    session_id: UUID
    turn: int
    agent: str | None
    content: str
    principal: Principal
    traceparent: str | None
    cause: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that this worker owns, under this epoch, until somebody claims it with a higher one."""

    tenant: str
    execution_id: UUID
    session_id: UUID
    turn: int
    epoch: int
    tries: int
    agent: str | None
    content: str
    principal: Principal
    traceparent: str | None
    cause: str
    created_at: datetime
    expires_at: datetime

    @property
    def context(self) -> EventContext:
        return EventContext(self.execution_id, self.session_id, self.tenant, self.turn, self.expires_at)


@dataclass(frozen=True, slots=True)
class Queued:
    """A run was stored, and waits for its turn or for a worker."""


@dataclass(frozen=True, slots=True)
class Known:
    """The run was there already."""


Arrival = ClaimedRun | Queued | Known
"""What became of a run when its request arrived."""


@dataclass(frozen=True, slots=True)
class KnownRun:
    """What can be told of a run to somebody who asks again.

    Attributes:
        context: the request it works on.
        end: how it ended, if it has.
        epoch: under which it is being worked on, if it is.
    """

    context: EventContext
    end: ResponseReady | ResponseFailed | None
    epoch: int | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run that a worker owns by the tables.

    Attributes:
        cancelled: somebody asked to stop it.
        expired: its deadline has passed.
    """

    tenant: str
    execution_id: UUID
    epoch: int
    cancelled: bool
    expired: bool

    @property
    def stop(self) -> FailureReason | None:
        """Why it has to end early, if it has to."""
        if self.cancelled:
            return FailureReason.CANCELLED_BY_CALLER
        return FailureReason.DEADLINE if self.expired else None


@dataclass(frozen=True, slots=True)
class Step:
    """A finished model call or tool result in the journal.

    Attributes:
        key: `model:<n>` or `tool:<call id>`.
        result: its message as JSON.
        keep: the last frame that belongs to it.
    """

    key: str
    result: str
    keep: Cursor


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """Everything a claimed run needs to go on.

    Attributes:
        window: the session's latest messages before this turn, oldest first, each as pydantic-ai's JSON.
        steps: the journal, in the order of writing.
        cancelled: somebody asked to stop it.
        expired: its deadline has passed.
        session_deleted: there is nobody to answer.
    """

    window: tuple[str, ...]
    steps: tuple[Step, ...]
    cancelled: bool
    expired: bool
    session_deleted: bool


@dataclass(frozen=True, slots=True)
class Served:
    """Which revision of which agent a run is done by."""

    agent: str
    revision: str


def answered(content: str, served: Served, usage: Usage, truncated: Truncation | None = None) -> ResponseReady:
    return ResponseReady(
        response=Response(content=content, truncated=truncated),
        agent=served.agent,
        revision=served.revision,
        usage=usage,
        completed_at=datetime.now(UTC),
    )


def failed(
    reason: FailureReason, message: str, served: Served | None = None, usage: Usage | None = None
) -> ResponseFailed:
    """Return how a run ends without an answer; the reason decides the status."""
    status = {
        FailureReason.CANCELLED_BY_CALLER: Status.CANCELLED,
        FailureReason.DEADLINE: Status.EXPIRED,
        FailureReason.SESSION_DELETED: Status.REFUSED,
        FailureReason.SESSION_BUSY: Status.REFUSED,
    }.get(reason, Status.FAILED)
    return ResponseFailed(
        status=status,
        error=Failure(reason=reason, message=message),
        agent=served.agent if served else None,
        revision=served.revision if served else None,
        usage=usage or Usage(),
        completed_at=datetime.now(UTC),
    )


def view_of(run: ClaimedRun, end: ResponseReady | ResponseFailed) -> RequestView:
    """Return the result of a run as request-manager will show it."""
    return RequestView(
        request_id=run.execution_id,
        session_id=run.session_id,
        turn=run.turn,
        status=end.status,
        response=end.response if isinstance(end, ResponseReady) else None,
        error=end.error if isinstance(end, ResponseFailed) else None,
        agent=end.agent,
        revision=end.revision,
        usage=end.usage,
        created_at=run.created_at,
        completed_at=end.completed_at,
    )


def title_of(content: str) -> str:
    """Return the first line of a first message, as a session's title until somebody gives it another."""
    line = content.strip().partition("\n")[0]
    return line if len(line) <= TITLE_LENGTH else f"{line[: TITLE_LENGTH - 1].rstrip()}…"

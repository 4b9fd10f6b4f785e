"""Runs: the work on one request, the ways it can end, and its result as its owner sees it. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from shared_models.envelope import EventContext
from shared_models.frames import Cursor
from shared_models.requests import (
    FAILURES,
    Failure,
    FailureReason,
    Principal,
    RequestView,
    Response,
    ResponseFailed,
    ResponseReady,
    Truncation,
    Usage,
)

MAX_TRIES = 5
"""Starts of one run; beyond them, something in the run is assumed to kill its workers."""
TITLE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run as the event of its request describes it, before it is stored.

    Attributes:
        context: the request, with its turn and its deadline.
        agent: the agent that the request names.
        cause: the id of the event.
    """

    context: EventContext
    agent: str | None
    content: str
    principal: Principal
    traceparent: str | None
    cause: str


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that one worker owns under this epoch, until another worker claims it under a higher one."""

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
    """The run was stored, and waits for its turn or for a worker."""


@dataclass(frozen=True, slots=True)
class AlreadyStored:
    """The run had been stored before; nothing was written."""


InsertOutcome = ClaimedRun | Queued | AlreadyStored
"""The outcome of storing a new run."""


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run, as it is published again for a request that comes again.

    Attributes:
        context: the request of the run.
        end: its answer or failure; None before its end.
        epoch: the epoch of its current claim; None while no worker works on it.
    """

    context: EventContext
    end: ResponseReady | ResponseFailed | None
    epoch: int | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class OwnedRun:
    """A running run that its row assigns to one worker.

    Attributes:
        cancelled: a cancellation is stored for it.
        expired: its deadline has passed.
    """

    tenant: str
    execution_id: UUID
    epoch: int
    cancelled: bool
    expired: bool

    @property
    def stop_reason(self) -> FailureReason | None:
        """The reason to stop it early; None if it may go on."""
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
    """Everything that a claimed run needs to go on.

    Attributes:
        window: the session's latest messages before this turn, oldest first, each as pydantic-ai's JSON.
        steps: the journal, in the order of writing.
        cancelled: a cancellation is stored for it.
        expired: its deadline has passed.
        session_deleted: its session was deleted.
    """

    window: tuple[str, ...]
    steps: tuple[Step, ...]
    cancelled: bool
    expired: bool
    session_deleted: bool


@dataclass(frozen=True, slots=True)
class DueTerminalFrame:
    """A terminal frame that is still to be appended to the log of an ended run.

    Attributes:
        epoch: the epoch under which the run ended.
        type: the frame's type.
        fields: its other fields.
    """

    tenant: str
    execution_id: UUID
    epoch: int
    type: str
    fields: dict[str, object]


@dataclass(frozen=True, slots=True)
class AgentRevision:
    """One revision of an agent, which its runs name in their results."""

    agent: str
    revision: str


def answered(
    content: str, revision: AgentRevision, usage: Usage, *, truncated: Truncation | None = None
) -> ResponseReady:
    return ResponseReady(
        response=Response(content=content, truncated=truncated),
        agent=revision.agent,
        revision=revision.revision,
        usage=usage,
        completed_at=datetime.now(UTC),
    )


def failed(
    reason: FailureReason, explanation: str = "", *, revision: AgentRevision | None = None, usage: Usage | None = None
) -> ResponseFailed:
    """Return the end of a run without an answer; the reason decides its status and its notice.

    The explanation is for the person, too, and follows the notice.
    """
    kind = FAILURES[reason]
    return ResponseFailed(
        status=kind.status,
        error=Failure(reason=reason, message=f"{kind.notice} {explanation}".rstrip()),
        agent=revision.agent if revision else None,
        revision=revision.revision if revision else None,
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


def trace_of(run: ClaimedRun | RunState) -> dict[str, str]:
    """Return the trace context of a run as an event carries it."""
    return {"traceparent": run.traceparent} if run.traceparent else {}


def title_of(content: str) -> str:
    """Return the first line of a first message, shortened: the session's title until its owner renames it."""
    line = content.strip().partition("\n")[0]
    return line if len(line) <= TITLE_LENGTH else f"{line[: TITLE_LENGTH - 1].rstrip()}…"

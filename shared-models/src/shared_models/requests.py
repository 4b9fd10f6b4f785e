"""Requests, their results, and the catalogues of states and failures.

A request is accepted by request-manager, becomes a run in agent-service and comes back as a result. Both services
(and later the evaluation and delivery ones) use these types. `STATES` holds the meaning of each status, `FAILURES` the
status and the sentence of each failure reason.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_CONTENT = 131_072
"""Characters of text in one request: an event of 256 KiB holds as many, even at two bytes for each."""


class Status(StrEnum):
    ACCEPTED = "accepted"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUSED = "refused"


class FailureReason(StrEnum):
    """The reason why a request ended without an answer; stable, for programs."""

    MODEL_UNAVAILABLE = "model_unavailable"
    MODEL_REFUSED = "model_refused"
    MODEL_CUT = "model_cut"
    CONTEXT_TOO_LONG = "context_too_long"
    UNKNOWN_AGENT = "unknown_agent"
    TOO_MANY_STEPS = "too_many_steps"
    INTERNAL = "internal"
    CANCELLED_BY_CALLER = "cancelled_by_caller"
    DEADLINE = "deadline"
    SESSION_DELETED = "session_deleted"
    SESSION_BUSY = "session_busy"


FailureStatus = Literal[Status.FAILED, Status.CANCELLED, Status.EXPIRED, Status.REFUSED]


@dataclass(frozen=True, slots=True)
class FailureKind:
    """The end that one failure reason leads to.

    Attributes:
        status: the request's final status.
        notice: the sentence that a person is told.
    """

    status: FailureStatus
    notice: str


FAILURES: dict[FailureReason, FailureKind] = {
    FailureReason.MODEL_UNAVAILABLE: FailureKind(Status.FAILED, "The model did not answer."),
    FailureReason.MODEL_REFUSED: FailureKind(Status.FAILED, "The model would not answer this."),
    FailureReason.MODEL_CUT: FailureKind(Status.FAILED, "The model's answer broke off."),
    FailureReason.CONTEXT_TOO_LONG: FailureKind(Status.FAILED, "This conversation is too long for the model."),
    FailureReason.UNKNOWN_AGENT: FailureKind(Status.FAILED, "There is no such agent."),
    FailureReason.TOO_MANY_STEPS: FailureKind(Status.FAILED, "The agent took more steps than it may."),
    FailureReason.INTERNAL: FailureKind(Status.FAILED, "Something went wrong on our side."),
    FailureReason.CANCELLED_BY_CALLER: FailureKind(Status.CANCELLED, "This request was cancelled."),
    FailureReason.DEADLINE: FailureKind(Status.EXPIRED, "This request ran out of time."),
    FailureReason.SESSION_DELETED: FailureKind(Status.REFUSED, "This conversation was deleted."),
    FailureReason.SESSION_BUSY: FailureKind(Status.REFUSED, "This conversation is busy with another request."),
}
"""The one catalogue of failures: every service takes the status and the sentence of a failure from here."""


@dataclass(frozen=True, slots=True)
class State:
    """The meaning of one status for every service.

    Attributes:
        terminal: nothing changes after it.
        run: the state of the run in agent-service that shows as this status.
        rank: within one epoch a status is only replaced by one of higher rank: see `settles`.
        notice: the sentence that a person is told when a failure of this status names no reason; else None.
    """

    terminal: bool
    run: str
    rank: int
    notice: str | None = None


STATES: dict[Status, State] = {
    Status.ACCEPTED: State(terminal=False, run="queued", rank=0),
    Status.RUNNING: State(terminal=False, run="running", rank=1),
    Status.WAITING: State(terminal=False, run="waiting", rank=2),
    Status.COMPLETED: State(terminal=True, run="completed", rank=3),
    Status.FAILED: State(terminal=True, run="failed", rank=3, notice="Something went wrong and no answer was made."),
    Status.CANCELLED: State(
        terminal=True, run="cancelled", rank=3, notice=FAILURES[FailureReason.CANCELLED_BY_CALLER].notice
    ),
    Status.EXPIRED: State(terminal=True, run="expired", rank=3, notice=FAILURES[FailureReason.DEADLINE].notice),
    Status.REFUSED: State(terminal=True, run="refused", rank=3, notice="This request was not taken on."),
}

TERMINAL = frozenset(status for status, state in STATES.items() if state.terminal)


class ClosedModel(BaseModel):
    """Base of the bodies that clients send: an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OpenModel(BaseModel):
    """Base of the types that services exchange: a reader ignores fields that were added later."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TextPart(ClosedModel):
    type: Literal["text"] = "text"
    text: Annotated[str, StringConstraints(min_length=1, max_length=MAX_CONTENT)]


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
"""A Kubernetes-style name: lower case letters, digits and hyphens, at most 63 characters."""


class NewRequest(ClosedModel):
    """The body of `POST /api/v1/requests` and of `POST /chat`."""

    content: (
        Annotated[str, StringConstraints(min_length=1, max_length=MAX_CONTENT)]
        | Annotated[tuple[TextPart, ...], Field(min_length=1, max_length=64)]
    )
    session_id: UUID | None = None
    agent: Name | None = None
    metadata: dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=1024)],
    ] = Field(default_factory=dict, max_length=32)


class Principal(OpenModel):
    """A caller: a person or machine, and the credential that it uses.

    Attributes:
        issuer: the authority that vouches for the subject.
        subject: the person or machine, stable within the issuer; never an e-mail address.
        tenant: the organisation that owns all rows of this caller.
        credential: a stable pseudonym of the key or session in use.
        channel: the way in: `api`, `web` or `cli`.
        scopes: the permissions of the credential.
    """

    issuer: str
    subject: str
    tenant: str
    credential: str
    channel: str
    scopes: frozenset[str] = frozenset()


class Usage(OpenModel):
    """Tokens as the provider counts them.

    Attributes:
        input_tokens: tokens that models read, including tokens from a cache.
        output_tokens: tokens that models wrote.
        model_calls: model calls with an answer.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    model_calls: int = 0


class Truncation(StrEnum):
    """Why an answer ends before the model was done."""

    LENGTH = "length"
    """The model's own limit of tokens."""
    SIZE = "size"
    """More than an event can carry: 196,608 bytes as JSON."""


class Response(OpenModel):
    """The answer to a request.

    Attributes:
        content: the answer's text, as Markdown.
        truncated: set where the text ends before the model was done: `length` at the model's limit, `size` at ours.
    """

    content: str
    truncated: Truncation | None = None


class Failure(OpenModel):
    """The reason why a request has no answer.

    Attributes:
        reason: a stable word for programs.
        message: a sentence for people, without any of the request's or the answer's text.
    """

    reason: FailureReason
    message: str


class Links(OpenModel):
    self: str
    status: str
    result: str
    stream: str


class Accepted(OpenModel):
    """The body of a 202."""

    request_id: UUID
    session_id: UUID
    status: Literal["accepted"] = "accepted"
    links: Links


class RequestView(OpenModel):
    """A request as its owner sees it at any time; the view of an ended request is its result.

    Attributes:
        retry_of: the failed request that this one replaces, because an operator retried it.
    """

    request_id: UUID
    session_id: UUID
    turn: int
    retry_of: UUID | None = None
    status: Status
    response: Response | None = None
    error: Failure | None = None
    agent: str | None = None
    revision: str | None = None
    usage: Usage | None = None
    created_at: datetime
    completed_at: datetime | None = None


class RequestList(OpenModel):
    requests: tuple[RequestView, ...]


class RequestCreated(OpenModel):
    """`flotilla.request.created.v1`: a request is durable and needs a run.

    Attributes:
        content: the request's text.
        agent: the agent that the caller chose; where it is unset, the session's agent or the default one.
        principal: the caller, whose permissions the run has.
        metadata: the caller's own labels.
    """

    content: str
    agent: str | None = None
    principal: Principal
    metadata: dict[str, str] = Field(default_factory=dict)


class RequestCancelled(OpenModel):
    """`flotilla.request.cancelled.v1`: a request should stop; only agent-service decides whether it is in time.

    Attributes:
        principal: the caller whose request it is.
        undeliverable: set where no caller cancelled: the reason why the request's own event can never be published.
    """

    principal: Principal
    undeliverable: str | None = None


class RunChanged(OpenModel):
    """`flotilla.run.changed.v1`: a run's status on the way to its end.

    Attributes:
        status: the run's status; a run's end has an event of its own.
        epoch: the number of the run's claim; a higher epoch is later.
    """

    status: Literal[Status.RUNNING, Status.WAITING]
    epoch: int


class ResponseReady(OpenModel):
    """`flotilla.response.ready.v1`: the answer.

    Attributes:
        status: the request's final status.
        response: the answer itself.
        agent, revision: the agent that answered, and the digest of its configuration.
        usage: the usage of all model calls of the run.
        completed_at: when the run ended.
    """

    status: Literal[Status.COMPLETED] = Status.COMPLETED
    response: Response
    agent: str
    revision: str
    usage: Usage
    completed_at: datetime


class ResponseFailed(OpenModel):
    """`flotilla.response.failed.v1`: a request ended without an answer; people receive it like an answer.

    Attributes:
        status: the request's final status.
        error: the reason why there is no answer.
        agent, revision: the agent that should have answered, where one was chosen.
        usage: the usage of the model calls until then.
        completed_at: when the run ended.
    """

    status: FailureStatus
    error: Failure
    agent: str | None = None
    revision: str | None = None
    usage: Usage = Usage()
    completed_at: datetime


def settles(old: Status, old_epoch: int, new: Status, new_epoch: int) -> bool:
    """Return whether status `new` may replace status `old`; the order in which their events arrive does not count.

    A terminal status is final and always wins. Below it a later epoch wins, and within one epoch a higher rank wins.
    """
    if STATES[old].terminal:
        return False
    return STATES[new].terminal or (new_epoch, STATES[new].rank) > (old_epoch, STATES[old].rank)

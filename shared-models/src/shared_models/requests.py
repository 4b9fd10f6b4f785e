"""Requests, their results, and the one table of states.

A request is accepted by request-manager, becomes a run in agent-service and comes back as a result. Both services
(and later the evaluation and delivery ones) speak of it in these types. What a state means is said once, in `STATES`.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_CONTENT = 131_072
"""Characters of text in one request: half of an event's 256 KiB even when each takes two bytes."""


class Status(StrEnum):
    ACCEPTED = "accepted"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class State:
    """What one status means to every service.

    Attributes:
        terminal: nothing changes after it.
        run: the state of the run in agent-service that shows as this status.
        rank: within one epoch a status is only replaced by one of higher rank: see `settles`.
        notice: what a person is told when no answer comes; None where there is an answer or the work goes on.
    """

    terminal: bool
    run: str
    rank: int
    notice: str | None


STATES: dict[Status, State] = {
    Status.ACCEPTED: State(terminal=False, run="queued", rank=0, notice=None),
    Status.RUNNING: State(terminal=False, run="running", rank=1, notice=None),
    Status.WAITING: State(terminal=False, run="waiting", rank=2, notice=None),
    Status.COMPLETED: State(terminal=True, run="completed", rank=3, notice=None),
    Status.FAILED: State(terminal=True, run="failed", rank=3, notice="Something went wrong and no answer was made."),
    Status.CANCELLED: State(terminal=True, run="cancelled", rank=3, notice="This request was cancelled."),
    Status.EXPIRED: State(terminal=True, run="expired", rank=3, notice="This request ran out of time."),
    Status.REFUSED: State(terminal=True, run="refused", rank=3, notice="This request was not taken on."),
}

TERMINAL = frozenset(status for status, state in STATES.items() if state.terminal)


class FailureReason(StrEnum):
    """Why a request ended without an answer; stable, for programs."""

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


class ClosedModel(BaseModel):
    """Base of bodies that strangers send: an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OpenModel(BaseModel):
    """Base of what services exchange: a field added later is ignored by those who do not know it."""

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
    """Who asked.

    Attributes:
        issuer: who vouches for the subject.
        subject: the person or machine, stable within the issuer; never an e-mail address.
        tenant: the organisation all rows belong to.
        credential: a stable pseudonym of the key or session used; "caller" is (credential, subject).
        channel: where the request came in (`api`, `web`, `cli`).
        scopes: what the credential may do.
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
        input_tokens: read by models, those from a cache included.
        output_tokens: written by models.
        model_calls: calls that were answered.
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
    """What was answered.

    Attributes:
        content: the answer's text, as Markdown.
        truncated: set where the text ends before the model was done: `length` at the model's limit, `size` at ours.
    """

    content: str
    truncated: Truncation | None = None


class Failure(OpenModel):
    """Why there is no answer.

    Attributes:
        reason: for programs, stable.
        message: for people, in plain words; never with what was asked or said.
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
    """A request as its owner sees it, at any time; once terminal it is the result.

    Attributes:
        retry_of: the failed request in whose place an operator had it asked again.
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
    """`flotilla.request.created.v1`: a request is durable and wants a run.

    Attributes:
        content: what was asked, as one text.
        agent: the agent that was asked for; the session's or the default one where it is unset.
        principal: who asked, and what the run may do in that name.
        metadata: the caller's own labels.
    """

    content: str
    agent: str | None = None
    principal: Principal
    metadata: dict[str, str] = Field(default_factory=dict)


class RequestCancelled(OpenModel):
    """`flotilla.request.cancelled.v1`: somebody asks to stop; only agent-service decides whether it was in time.

    Attributes:
        principal: who asked for the work.
        undeliverable: set where nobody wants it to stop, but its own event can never come: why.
    """

    principal: Principal
    undeliverable: str | None = None


class RunChanged(OpenModel):
    """`flotilla.run.changed.v1`: the run's state, for those who show it.

    Attributes:
        status: where the run stands; its end has an event of its own.
        epoch: which claim of the run says so; a higher one is later.
    """

    status: Literal[Status.RUNNING, Status.WAITING]
    epoch: int


class ResponseReady(OpenModel):
    """`flotilla.response.ready.v1`: the answer.

    Attributes:
        status: the request's final status.
        response: the answer itself.
        agent, revision: which agent answered, and the digest of its configuration.
        usage: of all the run's model calls.
        completed_at: when the run ended.
    """

    status: Literal[Status.COMPLETED] = Status.COMPLETED
    response: Response
    agent: str
    revision: str
    usage: Usage
    completed_at: datetime


class ResponseFailed(OpenModel):
    """`flotilla.response.failed.v1`: no answer will come, and why; delivered to people like an answer.

    Attributes:
        status: the request's final status.
        error: why.
        agent, revision: which agent was to answer, where that was known.
        usage: of the model calls there were.
        completed_at: when the run ended.
    """

    status: Literal[Status.FAILED, Status.CANCELLED, Status.EXPIRED, Status.REFUSED]
    error: Failure
    agent: str | None = None
    revision: str | None = None
    usage: Usage = Usage()
    completed_at: datetime


def settles(old: Status, old_epoch: int, new: Status, new_epoch: int) -> bool:
    """Tell whether `new` may replace `old`, in whatever order their events come.

    A terminal status is final and always wins; below it a later epoch wins, and within one epoch the higher rank.
    """
    if STATES[old].terminal:
        return False
    return STATES[new].terminal or (new_epoch, STATES[new].rank) > (old_epoch, STATES[old].rank)

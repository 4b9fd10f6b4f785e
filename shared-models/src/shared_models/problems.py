"""Problem types (RFC 9457): the catalogue of errors that HTTP clients may see.

A problem's `type` is stable, so programs may branch on it. Its title is the same for every occurrence. Its detail names
the mistake, the place and the expected value. `service_process.web` turns a raised `Problem` into the response.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class ProblemKind:
    slug: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        return f"urn:flotilla:problem:{self.slug}"


class Problems(Enum):
    INVALID_BODY = ProblemKind("invalid-body", 422, "The body does not have the expected shape")
    INVALID_JSON = ProblemKind("invalid-json", 400, "The body is not JSON")
    INVALID_PARAMETER = ProblemKind("invalid-parameter", 422, "A parameter is not as expected")
    BAD_REQUEST = ProblemKind("bad-request", 400, "The request is not as expected")
    BAD_HEADER = ProblemKind("bad-header", 400, "A header is not as expected")
    UNSUPPORTED_MEDIA_TYPE = ProblemKind("unsupported-media-type", 415, "The body's media type is not accepted here")
    BODY_TOO_LARGE = ProblemKind("body-too-large", 413, "The body is too large")
    RECEIVE_TIMEOUT = ProblemKind("receive-timeout", 408, "The body took too long to arrive")
    NO_IDENTITY = ProblemKind("no-identity", 401, "No valid identity was given")
    FORBIDDEN = ProblemKind("forbidden", 403, "This identity may not do that")
    BAD_ORIGIN = ProblemKind("bad-origin", 403, "The Origin of the request is not ours")
    MISDIRECTED = ProblemKind("misdirected", 421, "The Host of the request is not served here")
    NOT_FOUND = ProblemKind("not-found", 404, "There is nothing at this address")
    UNKNOWN_REQUEST = ProblemKind("unknown-request", 404, "There is no such request")
    UNKNOWN_SESSION = ProblemKind("unknown-session", 404, "There is no such session")
    UNKNOWN_AGENT = ProblemKind("unknown-agent", 404, "There is no such agent")
    UNKNOWN_DEAD_LETTER = ProblemKind("unknown-dead-letter", 404, "There is no such dead letter")
    NOT_REPLAYABLE = ProblemKind("not-replayable", 409, "This dead letter cannot be replayed")
    NOT_DEAD = ProblemKind("not-dead", 409, "This dead letter is settled, or is being retried")
    METHOD_NOT_ALLOWED = ProblemKind("method-not-allowed", 405, "This method is not allowed here")
    ALREADY_EXISTS = ProblemKind("already-exists", 409, "The resource exists already")
    OTHER_PERSON = ProblemKind("other-person", 409, "The link would change who is signed in")
    IDEMPOTENCY_KEY_REUSED = ProblemKind("idempotency-key-reused", 422, "The Idempotency-Key came with another body")
    RATE_LIMITED = ProblemKind("rate-limited", 429, "This limit is used up for the moment")
    TOO_MANY_OPEN = ProblemKind("too-many-open", 429, "Too many streams or waiting calls are open")
    OVERLOADED = ProblemKind("overloaded", 503, "There is too much to do at the moment")
    UNAVAILABLE = ProblemKind("unavailable", 503, "A system that this service needs does not answer at the moment")
    OUTCOME_UNKNOWN = ProblemKind("outcome-unknown", 503, "It is not known whether the request was carried out")
    INTERNAL = ProblemKind("internal", 500, "Something went wrong on our side")


class FaultBody(BaseModel):
    """One fault of a request; `pointer` is a JSON pointer to it."""

    pointer: str
    detail: str


class ProblemBody(BaseModel):
    """The body of an error response: RFC 9457's members, and `trace_id` and `errors`."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    trace_id: str
    errors: tuple[FaultBody, ...] = ()


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """An outcome that is answered with problem+json.

    Args:
        kind: a member of `Problems`.
        detail: the mistake, its place and the expected value; the caller sees it, so it holds no secret.
        errors: one entry per fault with `pointer` and `detail`, where a request has several faults.
        headers: response headers, such as Retry-After.
    """

    def __init__(
        self,
        kind: Problems,
        detail: str,
        *,
        errors: tuple[Mapping[str, str], ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind.value
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})


def unknown_agent(name: str, known: Iterable[str]) -> Problem:
    """Return the refusal of a request that names an agent which does not exist."""
    detail = f"There is no agent {name[:63]}. The agents are: {', '.join(sorted(known))}."
    return Problem(Problems.UNKNOWN_AGENT, detail)

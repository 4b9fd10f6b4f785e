"""The services around request-manager: a caller whose requests are accepted, and agent-service with its events."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from durable_work.outbox import Outbox, message_of
from request_manager.domain import Accepted, AcceptOutcome, normalise
from request_manager.usecases.accept_request import accept_request
from shared_clients.bus.port import Message
from shared_clients.postgres import Database
from shared_models.catalog import RESPONSE_FAILED, RESPONSE_READY, RUN_CHANGED
from shared_models.envelope import EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import (
    FAILURES,
    Failure,
    FailureReason,
    NewRequest,
    Principal,
    Response,
    ResponseFailed,
    ResponseReady,
    RunChanged,
    Status,
    Usage,
)

LIFETIME = timedelta(minutes=15)


def somebody() -> Principal:
    """Return the principal of a new person."""
    name = new_id().hex
    return Principal(
        issuer="idp",
        subject=name,
        tenant="acme",
        credential=f"key-{name}",
        channel="api",
        scopes=frozenset({"requests", "sessions"}),
    )


@dataclass
class Asking:
    """Accepts requests as the door does, for one person unless a call names another."""

    database: Database
    outbox: Outbox
    principal: Principal = field(default_factory=somebody)

    async def __call__(
        self,
        content: str = "hi",
        *,
        session: UUID | None = None,
        vouched: bool = False,
        key: str | None = None,
        principal: Principal | None = None,
    ) -> AcceptOutcome:
        body = NewRequest(content=content, session_id=session)
        vouched_sessions = frozenset({session}) if vouched and session else frozenset()
        draft = normalise(body, principal or self.principal, vouched_sessions, idempotency_key=key, lifetime=LIFETIME)
        return await accept_request(self.database, self.outbox, draft)

    async def accepted(self, content: str = "hi", *, session: UUID | None = None) -> Accepted:
        outcome = await self(content, session=session)
        assert isinstance(outcome, Accepted)
        return outcome


def running(accepted: Accepted, status: Status = Status.RUNNING, epoch: int = 1) -> Message:
    assert status is Status.RUNNING or status is Status.WAITING
    return message_of(
        new_event("agent-service", RUN_CHANGED, RunChanged(status=status, epoch=epoch), _context(accepted))
    )


def ready(content: str = "Hello.") -> ResponseReady:
    return ResponseReady(
        response=Response(content=content),
        agent="assistant",
        revision="r1",
        usage=Usage(input_tokens=3, output_tokens=5, model_calls=1),
        completed_at=datetime.now(UTC),
    )


def failed(reason: FailureReason = FailureReason.MODEL_UNAVAILABLE, message: str | None = None) -> ResponseFailed:
    kind = FAILURES[reason]
    error = Failure(reason=reason, message=message or kind.notice)
    return ResponseFailed(status=kind.status, error=error, completed_at=datetime.now(UTC))


def ended(accepted: Accepted, end: ResponseReady | ResponseFailed, tenant: str = "acme") -> Message:
    event = RESPONSE_READY if isinstance(end, ResponseReady) else RESPONSE_FAILED
    return message_of(new_event("agent-service", event, end, _context(accepted, tenant)))


def _context(accepted: Accepted, tenant: str = "acme") -> EventContext:
    return EventContext.of_request(
        accepted.request_id, accepted.session_id, tenant, accepted.turn, datetime.now(UTC) + LIFETIME
    )

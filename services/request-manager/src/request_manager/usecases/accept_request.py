"""Accept a request: one statement, one commit, then the event is on its way."""

from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from durable_work.outbox import Outbox, message_of
from request_manager import metrics, queries
from request_manager.domain import Accepted, Draft, Outcome, TooLarge, normalise
from request_manager.failpoints import Failpoint
from shared_clients.failpoints import reached
from shared_clients.postgres import Database
from shared_clients.tracing import inject
from shared_models.catalog import REQUEST_CREATED
from shared_models.envelope import MAX_DATA, EventContext, new_event
from shared_models.requests import NewRequest, Principal, RequestCreated


@dataclass(frozen=True, slots=True)
class Asked:
    """What came in, and from whom."""

    body: NewRequest
    principal: Principal
    vouched: frozenset[UUID]
    key: str | None
    retry_of: UUID | None = None


async def accept_request(database: Database, outbox: Outbox, asked: Asked, lifetime: timedelta) -> Outcome:
    """Make a request durable and have its event handed over.

    Args:
        database: request-manager's schema.
        outbox: hands the event over after the commit; the accepting statement has written its row.
        asked: the validated body, the caller and the Idempotency-Key.
        lifetime: until the request's deadline.
    """
    draft = normalise(asked.body, asked.principal, asked.vouched, key=asked.key, lifetime=lifetime)
    draft = replace(draft, retry_of=asked.retry_of) if asked.retry_of else draft
    data = _created(draft)
    if _may_be_too_large(draft) and (size := len(data.model_dump_json().encode())) > MAX_DATA:
        return TooLarge(size)
    context = EventContext(draft.request_id, draft.session_id, draft.principal.tenant, expires=draft.expires_at)
    event = message_of(new_event("request-manager", REQUEST_CREATED, data, context, trace=inject()))
    outcome = await queries.insert_request(database, draft, event)
    if isinstance(outcome, Accepted):
        reached(Failpoint.AFTER_ACCEPT_BEFORE_HAND_OVER)
        metrics.REQUESTS_ACCEPTED.labels(draft.principal.channel).inc()
        outbox.hand_over(replace(event, attributes={**event.attributes, "turn": str(outcome.turn)}))
    return outcome


def _may_be_too_large(draft: Draft) -> bool:
    """Bound the event from above without making it: a character takes at most six bytes of JSON."""
    return (
        6 * (len(draft.content) + sum(len(key) + len(value) for key, value in draft.metadata.items())) > MAX_DATA // 2
    )


def _created(draft: Draft) -> RequestCreated:
    return RequestCreated(content=draft.content, agent=draft.agent, principal=draft.principal, metadata=draft.metadata)

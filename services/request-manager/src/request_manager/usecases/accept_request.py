"""Accept a request: one statement and one commit, then its event is published."""

from dataclasses import replace

from durable_work.outbox import Outbox, message_of
from request_manager import metrics
from request_manager.domain import Accepted, AcceptOutcome, RequestDraft, TooLarge
from request_manager.failpoints import Failpoint
from request_manager.queries import accepting
from shared_clients.failpoints import reached
from shared_clients.postgres import Database
from shared_clients.tracing import inject
from shared_models.catalog import REQUEST_CREATED
from shared_models.envelope import MAX_DATA, EventContext, new_event
from shared_models.requests import RequestCreated


async def accept_request(database: Database, outbox: Outbox, draft: RequestDraft) -> AcceptOutcome:
    """Make a request durable and hand its event to the outbox.

    Args:
        database: request-manager's schema.
        outbox: publishes the event after the commit; the accepting statement has written the outbox row.
        draft: the normalised request.
    """
    data = RequestCreated(
        content=draft.content,
        agent=draft.agent,
        principal=draft.principal,
        metadata=draft.metadata,
        after_turn=draft.after_turn,
    )
    if _may_be_too_large(draft) and (size := len(data.model_dump_json().encode())) > MAX_DATA:
        return TooLarge(size)
    context = EventContext.of_request(
        draft.request_id, draft.session_id, draft.principal.tenant, expires=draft.expires_at
    )
    message = message_of(new_event("request-manager", REQUEST_CREATED, data, context, trace=inject()))
    outcome = await accepting.insert_request(database, draft, message)
    if isinstance(outcome, Accepted):
        reached(Failpoint.AFTER_ACCEPT_BEFORE_HAND_OVER)
        metrics.REQUESTS_ACCEPTED.labels(draft.principal.channel).inc()
        outbox.hand_over(replace(message, attributes={**message.attributes, "turn": str(outcome.turn)}))
    return outcome


def _may_be_too_large(draft: RequestDraft) -> bool:
    """Bound the event's size from above without serializing it: a character takes at most six bytes of JSON."""
    characters = len(draft.content) + sum(len(key) + len(value) for key, value in draft.metadata.items())
    return 6 * characters > MAX_DATA // 2

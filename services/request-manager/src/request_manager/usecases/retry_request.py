"""Ask a failed request again, because an operator replays its dead letter: a new request in the old one's session.

Who asked for what comes from our own row of the old request, never from what the dead event says. One request is asked
again once: whoever replays it a second time is told the same new request.
"""

from datetime import timedelta
from uuid import UUID

from durable_work.outbox import Outbox
from request_manager import queries
from request_manager.domain import NotFailed, Outcome, Replayed, UnknownRequest
from request_manager.usecases.accept_request import Asked, accept_request
from shared_clients.postgres import Database
from shared_models.requests import NewRequest, Status


async def retry_request(
    database: Database, outbox: Outbox, tenant: str, request_id: UUID, *, lifetime: timedelta
) -> Outcome | UnknownRequest | NotFailed:
    """Accept the old request's content anew, for the same person.

    Args:
        database: request-manager's schema.
        outbox: hands the new event over.
        tenant: the operator's; a request of another is unknown.
        request_id: the old request.
        lifetime: until the new request's deadline.
    """
    old = await queries.load_ended(database, tenant, request_id)
    if old is None:
        return UnknownRequest()
    if old.retried_as is not None:
        return Replayed(old.retried_as, old.session_id)
    if old.status not in {Status.FAILED, Status.EXPIRED}:
        return NotFailed(old.status)
    body = NewRequest.model_construct(
        content=old.content, session_id=old.session_id, agent=old.agent, metadata=old.metadata
    )
    key = f"retry of {request_id}"  # with spaces, so that no caller's own key is the same
    asked = Asked(body, old.principal, frozenset(), key, retry_of=request_id)
    return await accept_request(database, outbox, asked, lifetime)

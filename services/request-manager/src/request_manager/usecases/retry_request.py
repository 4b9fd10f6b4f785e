"""Retry a failed request for an operator who replays its dead letter: a new request in the old one's session.

Content and principal come from the old request's row, never from the dead event. A request is retried once: a second
replay returns the same new request.
"""

from datetime import timedelta
from uuid import UUID

from durable_work.outbox import Outbox
from request_manager.domain import NotFailed, Replayed, RetryOutcome, UnknownRequest, normalise, turn_before
from request_manager.queries import requests
from request_manager.usecases.accept_request import accept_request
from shared_clients.postgres import Database
from shared_models.requests import NewRequest, Status


async def retry_request(
    database: Database, outbox: Outbox, tenant: str, request_id: UUID, *, lifetime: timedelta
) -> RetryOutcome:
    """Accept the old request's content again, for the same person.

    Args:
        database: request-manager's schema.
        outbox: publishes the new event.
        tenant: the operator's tenant; a request of another tenant is unknown.
        request_id: the old request.
        lifetime: time from now to the new request's deadline.
    """
    old = await requests.load_request(database, tenant, request_id)
    if old is None:
        return UnknownRequest()
    if old.retried_as is not None:
        return Replayed(old.retried_as, old.place.session_id)
    if old.status not in {Status.FAILED, Status.EXPIRED}:
        return NotFailed(old.status)
    body = NewRequest.model_construct(
        content=old.content,
        session_id=old.place.session_id,
        instead_of=request_id,
        agent=old.agent,
        metadata=old.metadata,
    )
    draft = normalise(
        body,
        old.principal,
        frozenset(),
        idempotency_key=f"retry of {request_id}",  # the spaces keep it apart from every key that a caller may send
        lifetime=lifetime,
        retry_of=request_id,
        after_turn=turn_before(body, old.place),
    )
    return await accept_request(database, outbox, draft)

"""Ask agent-service to cancel a request; agent-service decides whether the cancellation came in time."""

from uuid import UUID

from durable_work.audit import Actor, Entry, record
from durable_work.outbox import Outbox
from request_manager.queries import requests
from shared_clients.postgres import Database, Tx
from shared_clients.tracing import inject
from shared_models.audit import Action
from shared_models.catalog import REQUEST_CANCELLED, REQUEST_CREATED
from shared_models.envelope import Envelope, new_event
from shared_models.requests import Principal, RequestCancelled, RequestCreated


async def cancel_request(database: Database, outbox: Outbox, caller: Principal, request_id: UUID) -> None:
    """Store the cancellation and publish it, once; do nothing for a request that has ended."""
    async with database.transaction() as tx:
        context = await requests.store_cancellation(tx, caller, request_id)
        if context is None:
            return
        cancellation = RequestCancelled(principal=caller)
        await outbox.publish(tx, new_event("request-manager", REQUEST_CANCELLED, cancellation, context, trace=inject()))
        await record(tx, Entry(caller.tenant, Actor.of(caller), Action.REQUEST_CANCEL_ASKED, str(request_id)))


async def cancel_unpublishable_request(tx: Tx, outbox: Outbox, event: Envelope, error: str) -> None:
    """Have agent-service fail the request whose `request.created` can never be published, in the request's turn."""
    if event.type == REQUEST_CREATED.name:
        principal = RequestCreated.model_validate_json(event.data).principal
        cancellation = RequestCancelled(principal=principal, undeliverable=error[:200])
        await outbox.publish(
            tx, new_event("request-manager", REQUEST_CANCELLED, cancellation, event.context, cause=event.id)
        )

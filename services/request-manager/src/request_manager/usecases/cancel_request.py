"""Ask for a request to be stopped; agent-service decides whether it was in time."""

from uuid import UUID

from durable_work.audit import Actor, Entry, record
from durable_work.outbox import Outbox
from request_manager import queries
from request_manager.domain import owner_of
from shared_clients.postgres import Database
from shared_clients.tracing import inject
from shared_models.audit import Action
from shared_models.catalog import REQUEST_CANCELLED
from shared_models.envelope import EventContext, new_event
from shared_models.requests import Principal, RequestCancelled


async def cancel_request(database: Database, outbox: Outbox, principal: Principal, request_id: UUID) -> None:
    """Note the wish and tell agent-service, once; for a request that has ended this does nothing."""
    async with database.transaction() as tx:
        found = await queries.ask_to_cancel(tx, principal.tenant, owner_of(principal), request_id)
        if found is None:
            return
        context = EventContext(request_id, found["session_id"], principal.tenant, found["turn"], found["expires_at"])
        data = RequestCancelled(principal=principal)
        await outbox.publish(tx, new_event("request-manager", REQUEST_CANCELLED, data, context, trace=inject()))
        await record(tx, Entry(principal.tenant, Actor.of(principal), Action.REQUEST_CANCEL_ASKED, str(request_id)))

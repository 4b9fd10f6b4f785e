"""Record what agent-service says of a request: its run's state, or its end."""

from uuid import UUID

from durable_work.outbox import Outbox
from request_manager import queries
from request_manager.failpoints import Failpoint
from shared_clients.failpoints import reached
from shared_clients.postgres import Tx
from shared_models.catalog import REQUEST_CANCELLED, REQUEST_CREATED
from shared_models.envelope import Envelope, EventContext, new_event
from shared_models.requests import RequestCancelled, RequestCreated, ResponseFailed, ResponseReady, RunChanged


async def settle_request(tx: Tx, event: Envelope, change: RunChanged | ResponseReady | ResponseFailed) -> None:
    """Record a change; a late or repeated one changes nothing."""
    if isinstance(change, RunChanged):
        await queries.note_run(tx, event.tenantid, event.correlationid, change)
    else:
        await queries.settle_request(tx, event.tenantid, event.correlationid, change)
        reached(Failpoint.AFTER_SETTLE_BEFORE_COMMIT)


async def give_up(tx: Tx, outbox: Outbox, event: Envelope, error: str) -> None:
    """Have agent-service fail the request of an event of ours that can never be published, in its turn."""
    if event.type == REQUEST_CREATED.name:
        principal = RequestCreated.model_validate_json(event.data).principal
        context = EventContext(
            event.correlationid, UUID(event.partitionkey), event.tenantid, event.turn, event.expirytime
        )
        wish = RequestCancelled(principal=principal, undeliverable=error[:200])
        await outbox.publish(tx, new_event("request-manager", REQUEST_CANCELLED, wish, context, cause=event.id))

"""Record what agent-service says of a request: its run's state, or its end."""

from request_manager import queries
from shared_clients.postgres import Tx
from shared_models.envelope import Envelope
from shared_models.requests import ResponseFailed, ResponseReady, RunChanged


async def settle_request(tx: Tx, event: Envelope, change: RunChanged | ResponseReady | ResponseFailed) -> None:
    """Record a change; a late or repeated one changes nothing."""
    if isinstance(change, RunChanged):
        await queries.note_run(tx, event.tenantid, event.correlationid, change)
    else:
        await queries.settle_request(tx, event.tenantid, event.correlationid, change)

"""Record the events of agent-service about a request: its run's status, and its end.

Both are reactions to events. A late or repeated event changes nothing.
"""

from request_manager.failpoints import Failpoint
from request_manager.queries import requests
from shared_clients.failpoints import reached
from shared_clients.postgres import Tx
from shared_models.envelope import Envelope
from shared_models.requests import ResponseFailed, ResponseReady, RunChanged


async def record_run_status(tx: Tx, event: Envelope, change: RunChanged) -> None:
    """Show a run's status as its request's status."""
    await requests.store_run_status(tx, event.tenantid, event.request_id, change)


async def settle_request(tx: Tx, event: Envelope, end: ResponseReady | ResponseFailed) -> None:
    """Store a request's end, which is final."""
    await requests.settle_request(tx, event.tenantid, event.request_id, end)
    reached(Failpoint.AFTER_SETTLE_BEFORE_COMMIT)

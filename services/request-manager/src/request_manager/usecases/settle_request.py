"""Record what agent-service says of a request: its run's state, or its end."""

from datetime import UTC, datetime

from request_manager import queries
from shared_clients.postgres import Tx
from shared_models.catalog import REQUEST_CREATED
from shared_models.envelope import Envelope
from shared_models.requests import Failure, FailureReason, ResponseFailed, ResponseReady, RunChanged, Status


async def settle_request(tx: Tx, event: Envelope, change: RunChanged | ResponseReady | ResponseFailed) -> None:
    """Record a change; a late or repeated one changes nothing."""
    if isinstance(change, RunChanged):
        await queries.note_run(tx, event.tenantid, event.correlationid, change)
    else:
        await queries.settle_request(tx, event.tenantid, event.correlationid, change)


async def fail_untold(tx: Tx, event: Envelope, error: str) -> None:
    """Fail the request of an event of ours that can never be published: nobody else will hear of it."""
    if event.type == REQUEST_CREATED.name:
        message = f"The request could not be passed on. Its event is kept as a dead letter: {error[:200]}"
        failure = Failure(reason=FailureReason.INTERNAL, message=message)
        end = ResponseFailed(status=Status.FAILED, error=failure, completed_at=datetime.now(UTC))
        await queries.settle_request(tx, event.tenantid, event.correlationid, end)

"""Cancel a run: at once while it is queued; a running run is stopped by its worker, which polls for cancellations."""

from uuid import UUID

from agent_service.domain.runs import failed
from agent_service.queries import ends as queries
from agent_service.usecases.end_run import end_queued_run
from durable_work.outbox import Outbox
from shared_clients.postgres import Tx
from shared_models.requests import FailureReason


async def cancel_run(tx: Tx, outbox: Outbox, tenant: str, execution_id: UUID) -> None:
    """Store the cancellation, which also holds for a run that comes later, and end the run if it is queued."""
    await queries.insert_cancellation(tx, tenant, execution_id)
    run = await queries.lock_queued_run(tx, tenant, execution_id)
    if run is not None:
        await end_queued_run(tx, outbox, run, failed(FailureReason.CANCELLED_BY_CALLER))

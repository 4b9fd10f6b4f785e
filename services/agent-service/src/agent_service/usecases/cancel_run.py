"""Stop a run that somebody does not want any more: at once if it is queued, at the worker's next look if it runs."""

from uuid import UUID

from agent_service.domain.runs import failed
from agent_service.queries import ends as queries
from agent_service.usecases.end_run import end_run
from durable_work.outbox import Outbox
from shared_clients.postgres import Tx
from shared_models.requests import FailureReason


async def cancel_run(tx: Tx, outbox: Outbox, tenant: str, execution_id: UUID) -> None:
    """Note the wish, which also holds for a run that has not come yet, and end the run if nobody works on it."""
    run = await queries.ask_to_cancel(tx, tenant, execution_id)
    if run is not None:
        end = failed(FailureReason.CANCELLED_BY_CALLER, "The request was cancelled before its turn came.")
        await end_run(tx, outbox, run, end, queued=True)

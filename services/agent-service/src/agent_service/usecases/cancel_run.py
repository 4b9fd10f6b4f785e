"""Cancel a run: at once while it is queued; a running run is stopped by its worker, which polls for cancellations."""

from agent_service.domain.runs import failed
from agent_service.queries import ends as queries
from agent_service.usecases.end_run import end_queued_run
from durable_work.inbox import NotBelieved
from durable_work.outbox import Outbox
from shared_clients.postgres import Tx
from shared_models.envelope import EventContext
from shared_models.principals import Person
from shared_models.requests import FailureReason


async def cancel_run(tx: Tx, outbox: Outbox, context: EventContext, person: Person) -> None:
    """Store the cancellation, which also holds for a run that comes later, and end the run if it is queued.

    Raises:
        NotBelieved: the session belongs to another person than the one who cancels.
    """
    owner = await queries.load_owner(tx, context.tenant, context.session_id)
    if owner not in {None, person}:
        msg = f"the session {context.session_id} belongs to another person than the principal of the cancellation"
        raise NotBelieved(msg)
    await queries.insert_cancellation(tx, context.tenant, context.request_id)
    run = await queries.lock_queued_run(tx, context.tenant, context.request_id)
    if run is not None:
        await end_queued_run(tx, outbox, run, failed(FailureReason.CANCELLED_BY_CALLER))

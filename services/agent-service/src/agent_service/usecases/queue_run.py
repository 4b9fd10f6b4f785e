"""Store the run of a request: queued, or claimed at once if a slot is free and the session's turn has come.

request-manager sends a request again when it has heard nothing of its run for a while; then the state of the run is
published again.
"""

from agent_service.domain.runs import AlreadyStored, ClaimedRun, NewRun, OtherOwner, trace_of
from agent_service.queries import runs as queries
from agent_service.usecases.republish_state import republish_state
from durable_work.inbox import NotBelieved
from durable_work.jobs import Slots
from durable_work.outbox import Outbox
from shared_clients.postgres import Tx
from shared_models.catalog import RUN_CHANGED
from shared_models.envelope import new_event
from shared_models.requests import RunChanged, Status


async def queue_run(tx: Tx, outbox: Outbox, slots: Slots[ClaimedRun], run: NewRun) -> None:
    """Store the run in the transaction of its event; a run that is claimed there starts right after the commit.

    Raises:
        NotBelieved: the session belongs to another person than the run's principal.
    """
    reserved = slots.reserve_for(run.context.tenant)
    if reserved:
        tx.after_rollback(slots.release)
    outcome = await queries.insert_run(tx, run, slots.worker if reserved else None)
    if isinstance(outcome, ClaimedRun):
        await announce_running(tx, outbox, outcome)
        tx.after_commit(lambda: slots.start(outcome))
        return
    if isinstance(outcome, OtherOwner):
        msg = f"the session {run.context.session_id} belongs to another person than the principal of the request"
        raise NotBelieved(msg)
    if reserved:
        tx.after_commit(slots.release)
    if isinstance(outcome, AlreadyStored):
        await republish_state(tx, outbox, run.context.tenant, run.context.request_id)


async def announce_running(tx: Tx, outbox: Outbox, run: ClaimedRun) -> None:
    """Publish that a run is running, in the transaction that claims it."""
    change = RunChanged(status=Status.RUNNING, epoch=run.epoch)
    event = new_event("agent-service", RUN_CHANGED, change, run.context, cause=run.cause, trace=trace_of(run))
    await outbox.publish(tx, event)

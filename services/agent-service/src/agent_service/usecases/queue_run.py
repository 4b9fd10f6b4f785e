"""Make a run of a request: queued, or begun at once where a slot is free and the session's turn has come.

A request that comes again, because nobody has heard of its run for a while, is told what there is to tell of it.
"""

from agent_service.domain.runs import ClaimedRun, Known, NewRun
from agent_service.queries import runs as queries
from agent_service.usecases.tell_again import tell_again
from durable_work.leases import Slots
from durable_work.outbox import Outbox
from shared_clients.postgres import Tx
from shared_models.catalog import RUN_CHANGED
from shared_models.envelope import new_event
from shared_models.requests import RunChanged, Status


async def queue_run(tx: Tx, outbox: Outbox, slots: Slots[ClaimedRun], run: NewRun) -> None:
    """Store the run in the event's own transaction; when it is claimed there, it starts right after the commit."""
    reserved = slots.reserve()
    if reserved:
        tx.after_rollback(slots.release)
    owner = f"{run.principal.issuer}|{run.principal.subject}"
    arrival = await queries.insert_run(tx, run, owner, slots.worker if reserved else None)
    if isinstance(arrival, ClaimedRun):
        await announce_running(tx, outbox, arrival)
        tx.after_commit(lambda: slots.start(arrival))
        return
    if reserved:
        tx.after_commit(slots.release)
    if isinstance(arrival, Known):
        await tell_again(tx, outbox, run.tenant, run.execution_id)


async def announce_running(tx: Tx, outbox: Outbox, run: ClaimedRun) -> None:
    """Tell who shows it that a run is being worked on, in the transaction that claims it."""
    change = RunChanged(status=Status.RUNNING, epoch=run.epoch)
    trace = {"traceparent": run.traceparent} if run.traceparent else {}
    await outbox.publish(tx, new_event("agent-service", RUN_CHANGED, change, run.context, cause=run.cause, trace=trace))

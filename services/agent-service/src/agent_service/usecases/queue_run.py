"""Make a run of a request: queued, or begun at once where a slot is free and the session's turn has come."""

from agent_service.domain.runs import ClaimedRun, NewRun
from agent_service.queries import runs as queries
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
        tx.after_rollback(slots.give_back)
    owner = f"{run.principal.issuer}|{run.principal.subject}"
    claimed = await queries.insert_run(tx, run, owner, slots.worker if reserved else None)
    if claimed is not None:
        await announce_running(tx, outbox, claimed)
        tx.after_commit(lambda: slots.start(claimed))
    elif reserved:
        tx.after_commit(slots.give_back)


async def announce_running(tx: Tx, outbox: Outbox, run: ClaimedRun) -> None:
    """Tell who shows it that a run is being worked on, in the transaction that claims it."""
    change = RunChanged(status=Status.RUNNING, epoch=run.epoch)
    trace = {"traceparent": run.traceparent} if run.traceparent else {}
    await outbox.publish(tx, new_event("agent-service", RUN_CHANGED, change, run.about, cause=run.cause, trace=trace))

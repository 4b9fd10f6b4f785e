"""End a run: its row, its event and its terminal frame agree, and a crash between them is made good by a sweep."""

from collections.abc import Sequence
from uuid import UUID

from agent_service.domain.runs import ClaimedRun, failed, view_of
from agent_service.failpoints import Failpoint
from agent_service.queries import ends
from agent_service.queries import runs as queries
from durable_work.outbox import Outbox
from run_frames import append_terminal
from shared_clients.failpoints import reached
from shared_clients.postgres import Database, Tx
from shared_clients.redis import Redis
from shared_models.catalog import RESPONSE_FAILED, RESPONSE_READY
from shared_models.envelope import Envelope, EventContext, new_event
from shared_models.frames import terminal_frame
from shared_models.requests import FailureReason, ResponseFailed, ResponseReady


async def end_run(
    tx: Tx,
    outbox: Outbox,
    run: ClaimedRun,
    end: ResponseReady | ResponseFailed,
    *,
    messages: Sequence[str] = (),
    queued: bool = False,
) -> None:
    """Write a run's end and its event in one transaction.

    Raises:
        Stale: the run is somebody else's, or has ended already.
    """
    frame = ends.frame_json(*terminal_frame(view_of(run, end)))
    await queries.finish_run(tx, run, end, terminal_frame=frame, messages=messages, queued=queued)
    event = RESPONSE_READY if isinstance(end, ResponseReady) else RESPONSE_FAILED
    trace = {"traceparent": run.traceparent} if run.traceparent else {}
    await outbox.publish(tx, new_event("agent-service", event, end, run.context, cause=run.cause, trace=trace))


async def tell_untold(tx: Tx, outbox: Outbox, event: Envelope, error: str) -> None:
    """Tell a failure in place of an answer that can never be published; the answer stays in its session."""
    if event.type == RESPONSE_READY.name:
        end = failed(FailureReason.INTERNAL, f"There is an answer, and it could not be passed on: {error[:200]}")
        context = EventContext(
            event.correlationid, UUID(event.partitionkey), event.tenantid, event.turn, event.expirytime
        )
        await outbox.publish(tx, new_event("agent-service", RESPONSE_FAILED, end, context, cause=event.id))


async def end_overdue(database: Database, outbox: Outbox) -> int:
    """End queued runs whose deadline has passed, and return how many there were."""
    async with database.transaction() as tx:
        runs = await ends.overdue(tx)
        for run in runs:
            end = failed(FailureReason.DEADLINE, "The request's deadline passed before its turn came.")
            await end_run(tx, outbox, run, end, queued=True)
    return len(runs)


async def tell_ends(database: Database, redis: Redis) -> int:
    """Append the terminal frames that a crash or an outage of Redis left out, and return how many."""
    untold = await ends.untold(database)
    for tenant, execution_id, epoch, frame in untold:
        await append_terminal(
            redis,
            tenant=tenant,
            execution_id=execution_id,
            epoch=epoch,
            type_=frame["type"],
            fields=frame["fields"],
        )
        reached(Failpoint.AFTER_SWEPT_FRAME_BEFORE_TOLD)
        await ends.told(database, tenant, execution_id)
    return len(untold)

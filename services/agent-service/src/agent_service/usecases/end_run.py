"""End a run: its row, its event and its terminal frame agree.

The row and the event are committed together. The terminal frame is stored with them until it has been appended to the
run's log, so that a sweep can append it after a crash.
"""

from collections.abc import Sequence

from agent_service.domain.history import dump, load, said_by_run, user_turn
from agent_service.domain.runs import ClaimedRun, DueTerminalFrame, failed, trace_of, view_of
from agent_service.failpoints import Failpoint
from agent_service.queries import ends
from agent_service.queries import runs as queries
from durable_work.outbox import Outbox
from run_frames import append_terminal
from shared_clients.failpoints import reached
from shared_clients.postgres import Database, Tx
from shared_clients.redis import Redis
from shared_models.catalog import RESPONSE_FAILED, RESPONSE_READY
from shared_models.envelope import Envelope, new_event
from shared_models.frames import Cursor, terminal_frame
from shared_models.requests import FailureReason, ResponseFailed, ResponseReady


async def end_run(
    tx: Tx,
    outbox: Outbox,
    run: ClaimedRun,
    end: ResponseReady | ResponseFailed,
    *,
    messages: Sequence[str] = (),
    queued: bool = False,
) -> DueTerminalFrame:
    """Write the end of a run and its event in one transaction, and return the terminal frame that is now due.

    `messages` are added to the run's session. With `queued` the run has to be queued, else running.

    Raises:
        Stale: another worker owns the run, or it has ended already.
    """
    frame = DueTerminalFrame(run.tenant, run.execution_id, run.epoch, terminal_frame(view_of(run, end)))
    await queries.finish_run(tx, run, end, terminal_frame=frame, messages=messages, queued=queued)
    event_type = RESPONSE_READY if isinstance(end, ResponseReady) else RESPONSE_FAILED
    event = new_event("agent-service", event_type, end, run.context, cause=run.cause, trace=trace_of(run))
    await outbox.publish(tx, event)
    return frame


async def end_queued_run(tx: Tx, outbox: Outbox, run: ClaimedRun, end: ResponseFailed) -> None:
    """Write the end of a run that no worker has, with the question and the steps that earlier workers finished."""
    steps = {step.key: step.result for step in await queries.load_steps(tx, run)}
    messages = said_by_run(
        user_turn(run.content, run.execution_id), lambda key: load(steps[key]) if key in steps else None, {}
    )
    await end_run(tx, outbox, run, end, messages=[dump(message) for message in messages], queued=True)


async def fail_unpublishable_response(tx: Tx, outbox: Outbox, event: Envelope, error: str) -> None:
    """Publish a failure in place of an answer that can never be published; the answer stays in its session."""
    if event.type == RESPONSE_READY.name:
        explanation = f"There is an answer, and it could not be passed on: {error[:200]}"
        end = failed(FailureReason.INTERNAL, explanation)
        await outbox.publish(tx, new_event("agent-service", RESPONSE_FAILED, end, event.context, cause=event.id))


async def end_overdue_runs(database: Database, outbox: Outbox) -> int:
    """End queued runs whose deadline has passed, and return their number."""
    async with database.transaction() as tx:
        runs = await ends.lock_overdue_runs(tx)
        for run in runs:
            await end_queued_run(tx, outbox, run, failed(FailureReason.DEADLINE))
    return len(runs)


async def append_due_terminal_frames(database: Database, redis: Redis) -> int:
    """Append the terminal frames that a crash or an outage of Redis left due, and return their number."""
    frames = await ends.list_due_terminal_frames(database)
    for frame in frames:
        await append_due_terminal_frame(redis, frame)
        reached(Failpoint.AFTER_SWEPT_FRAME_BEFORE_CLEAR)
        await ends.clear_due_terminal_frame(database, frame)
    return len(frames)


async def append_due_terminal_frame(redis: Redis, frame: DueTerminalFrame, *, last: Cursor | None = None) -> None:
    """Append one terminal frame to the log of its run, whose last frame is `last` if the log is complete.

    Raises:
        Transient: Redis is away.
    """
    await append_terminal(
        redis,
        tenant=frame.tenant,
        execution_id=frame.execution_id,
        epoch=frame.epoch,
        event=frame.event,
        last=last,
    )

"""The statements of ends: cancellations, overdue runs, stored ends and due terminal frames."""

from collections.abc import Sequence
from uuid import UUID

from agent_service.domain.runs import ClaimedRun, DueTerminalFrame, RunState
from agent_service.queries.runs import CLAIMED_COLUMNS, claimed_run
from shared_clients.postgres import Database, Tx, sql
from shared_models.envelope import EventContext
from shared_models.requests import TERMINAL, Failure, Response, ResponseFailed, ResponseReady, Status, Usage

INSERT_CANCELLATION = sql("""
    INSERT INTO cancellations (tenant, execution_id) VALUES (:tenant, :execution_id) ON CONFLICT DO NOTHING
""")
DELETE_EXPIRED_CANCELLATIONS = sql("DELETE FROM cancellations WHERE asked_at < now() - interval '8 days'")
LOCK_QUEUED_RUN = sql(f"""
    SELECT {CLAIMED_COLUMNS.format(run="r")}
    FROM sessions s JOIN runs r ON r.tenant = s.tenant AND r.session_id = s.session_id
    WHERE r.tenant = :tenant AND r.execution_id = :execution_id AND r.status = 'queued' FOR UPDATE OF s, r
""")
"""The session is locked before its run, as in every transaction that changes the current run of a session."""
LOCK_OVERDUE_RUNS = sql(f"""
    SELECT {CLAIMED_COLUMNS.format(run="r")}
    FROM sessions s JOIN runs r ON r.tenant = s.tenant AND r.session_id = s.session_id
    WHERE r.status = 'queued' AND r.expires_at < now()
    ORDER BY r.expires_at LIMIT 50 FOR UPDATE OF s, r SKIP LOCKED
""")
LIST_DUE_TERMINAL_FRAMES = sql("""
    SELECT tenant, execution_id, epoch, terminal_frame FROM runs
    WHERE terminal_frame IS NOT NULL AND finished_at NOT BETWEEN now() - interval '1 second' AND now()
    ORDER BY finished_at LIMIT 100
""")
"""The worker of a run has one second to append the frame itself. An end in the future comes from a wrong clock, and its
frame is due at once."""
CLEAR_DUE_TERMINAL_FRAME = sql("""
    UPDATE runs SET terminal_frame = NULL WHERE tenant = :tenant AND execution_id = :execution_id
""")
LOAD_RUN_STATE = sql("""
    SELECT execution_id, session_id, tenant, turn, expires_at, status, epoch, traceparent, agent, revision, answer,
           truncated, failure, usage, finished_at
    FROM runs WHERE tenant = :tenant AND execution_id = :execution_id
""")


async def insert_cancellation(tx: Tx, tenant: str, execution_id: UUID) -> None:
    """Store a cancellation, which also holds for a run that is not stored yet."""
    await tx.run(INSERT_CANCELLATION, tenant=tenant, execution_id=execution_id)


async def delete_expired_cancellations(database: Database) -> int:
    """Delete cancellations whose requests have all passed their deadline; return their number."""
    async with database.autocommit() as tx:
        return await tx.run(DELETE_EXPIRED_CANCELLATIONS)


async def lock_queued_run(tx: Tx, tenant: str, execution_id: UUID) -> ClaimedRun | None:
    """Lock a run and return it; None if it is not queued."""
    row = await tx.row(LOCK_QUEUED_RUN, tenant=tenant, execution_id=execution_id)
    return None if row is None else claimed_run(row)


async def lock_overdue_runs(tx: Tx) -> Sequence[ClaimedRun]:
    """Lock and return queued runs whose deadline has passed."""
    return [claimed_run(row) for row in await tx.rows(LOCK_OVERDUE_RUNS)]


async def list_due_terminal_frames(database: Database) -> Sequence[DueTerminalFrame]:
    """List the terminal frames that the workers of ended runs have left to the sweep."""
    async with database.autocommit() as tx:
        rows = await tx.rows(LIST_DUE_TERMINAL_FRAMES)
    return [
        DueTerminalFrame(
            row["tenant"],
            row["execution_id"],
            row["epoch"],
            row["terminal_frame"]["type"],
            row["terminal_frame"]["fields"],
        )
        for row in rows
    ]


async def clear_due_terminal_frame(database: Database, frame: DueTerminalFrame) -> None:
    """Note that a terminal frame was appended."""
    async with database.autocommit() as tx:
        await tx.run(CLEAR_DUE_TERMINAL_FRAME, tenant=frame.tenant, execution_id=frame.execution_id)


async def load_run_state(tx: Tx, tenant: str, execution_id: UUID) -> RunState | None:
    """Load the state of a run as it can be published again; None if there is no such run."""
    row = await tx.row(LOAD_RUN_STATE, tenant=tenant, execution_id=execution_id)
    if row is None:
        return None
    context = EventContext(execution_id, row["session_id"], tenant, row["turn"], row["expires_at"])
    status, usage = row["status"], Usage.model_validate(row["usage"] or {})
    end: ResponseReady | ResponseFailed | None = None
    if status == Status.COMPLETED:
        end = ResponseReady(
            response=Response(content=row["answer"], truncated=row["truncated"]),
            agent=row["agent"],
            revision=row["revision"],
            usage=usage,
            completed_at=row["finished_at"],
        )
    elif status in TERMINAL:
        end = ResponseFailed(
            status=status,
            error=Failure.model_validate(row["failure"]),
            agent=row["agent"],
            revision=row["revision"],
            usage=usage,
            completed_at=row["finished_at"],
        )
    return RunState(context, end, row["epoch"] if status == Status.RUNNING else None, row["traceparent"])

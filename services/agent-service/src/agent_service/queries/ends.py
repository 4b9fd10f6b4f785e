"""The statements of ends: wishes and deadlines that bring them about, and what is still to be told of them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from agent_service.domain.runs import ClaimedRun, KnownRun
from agent_service.queries.runs import CLAIMED, claimed
from shared_clients.postgres import Database, Tx, sql
from shared_models.envelope import EventContext
from shared_models.requests import TERMINAL, Failure, Response, ResponseFailed, ResponseReady, Status, Usage

REMEMBER_CANCEL = sql("""
    INSERT INTO cancellations (tenant, execution_id) VALUES (:tenant, :execution_id) ON CONFLICT DO NOTHING
""")
FORGET_CANCELLATIONS = sql("DELETE FROM cancellations WHERE asked_at < now() - interval '8 days'")
LOCK_QUEUED = sql(f"""
    SELECT {CLAIMED} FROM runs r
    WHERE r.tenant = :tenant AND r.execution_id = :execution_id AND r.status = 'queued' FOR UPDATE
""")
OVERDUE = sql(f"""
    SELECT {CLAIMED} FROM runs r WHERE r.status = 'queued' AND r.expires_at < now()
    ORDER BY r.expires_at LIMIT 50 FOR UPDATE SKIP LOCKED
""")
UNTOLD = sql("""
    SELECT tenant, execution_id, epoch, terminal_frame FROM runs
    WHERE terminal_frame IS NOT NULL AND finished_at NOT BETWEEN now() - interval '1 second' AND now()
    ORDER BY finished_at LIMIT 100
""")
"""Its worker is given a second to do it; an end later than now was dated by a clock that is wrong."""
TOLD = sql("UPDATE runs SET terminal_frame = NULL WHERE tenant = :tenant AND execution_id = :execution_id")
KNOWN = sql("""
    SELECT execution_id, session_id, tenant, turn, expires_at, status, epoch, traceparent, agent, revision, answer,
           truncated, failure, usage, finished_at
    FROM runs WHERE tenant = :tenant AND execution_id = :execution_id
""")


async def ask_to_cancel(tx: Tx, tenant: str, execution_id: UUID) -> ClaimedRun | None:
    """Note that a run is to stop, also when it has not come yet; return it locked if it is still queued."""
    await tx.run(REMEMBER_CANCEL, tenant=tenant, execution_id=execution_id)
    row = await tx.row(LOCK_QUEUED, tenant=tenant, execution_id=execution_id)
    return None if row is None else claimed(row)


async def forget_cancellations(database: Database) -> int:
    """Drop wishes so old that a request they could be for cannot come any more."""
    async with database.reading() as tx:
        return await tx.run(FORGET_CANCELLATIONS)


async def overdue(tx: Tx) -> Sequence[ClaimedRun]:
    """Lock and return queued runs whose deadline has passed."""
    return [claimed(row) for row in await tx.rows(OVERDUE)]


async def untold(database: Database) -> Sequence[tuple[str, UUID, int, dict[str, Any]]]:
    """Return ended runs whose terminal frame may be missing: (tenant, execution id, epoch, frame)."""
    async with database.reading() as tx:
        rows = await tx.rows(UNTOLD)
    return [(row["tenant"], row["execution_id"], row["epoch"], row["terminal_frame"]) for row in rows]


async def told(database: Database, tenant: str, execution_id: UUID) -> None:
    async with database.reading() as tx:
        await tx.run(TOLD, tenant=tenant, execution_id=execution_id)


async def known_run(tx: Tx, tenant: str, execution_id: UUID) -> KnownRun | None:
    """Return what can be told of a run, whatever its state."""
    row = await tx.row(KNOWN, tenant=tenant, execution_id=execution_id)
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
    return KnownRun(context, end, row["epoch"] if status == Status.RUNNING else None, row["traceparent"])


def frame_json(type_: str, fields: dict[str, object]) -> bytes:
    """Return a terminal frame as it is kept in the row until it has been appended."""
    return to_json({"type": type_, "fields": fields})

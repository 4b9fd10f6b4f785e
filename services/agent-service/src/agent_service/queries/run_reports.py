"""The statements of run reports, for operators of one tenant."""

from uuid import UUID

from sqlalchemy import RowMapping

from agent_service.domain.history import load
from agent_service.domain.run_reports import RunReport, RunSummary, StoredStep, step_reports
from shared_clients.postgres import Database, sql

COLUMNS = """
    r.execution_id AS request_id, r.session_id, r.turn, r.agent, r.revision, r.tries, r.epoch,
    CASE r.status WHEN 'queued' THEN 'accepted' ELSE r.status END AS status, r.failure->>'reason' AS reason, r.usage,
    r.terminal_frame IS NOT NULL AS due, r.created_at, r.started_at, r.finished_at, r.expires_at
"""
LIST_RUNS = sql(f"""
    SELECT {COLUMNS} FROM runs r
    WHERE r.tenant = :tenant
      AND r.execution_id < coalesce(CAST(:before AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
    ORDER BY r.execution_id DESC LIMIT :most
""")
"""Ids are UUIDv7, so the primary key has them in the order of their requests."""
LOAD_SUMMARY = sql(f"SELECT {COLUMNS} FROM runs r WHERE r.tenant = :tenant AND r.execution_id = :execution_id")
LIST_STEPS = sql("""
    SELECT key, epoch, CAST(result AS text) AS result, created_at FROM steps
    WHERE tenant = :tenant AND execution_id = :execution_id ORDER BY created_at, key LIMIT 1000
""")


async def list_runs(database: Database, tenant: str, *, before: UUID | None, most: int) -> tuple[RunSummary, ...]:
    """Return the runs of a tenant whose requests came before the request `before`, the newest first."""
    async with database.autocommit() as tx:
        rows = await tx.rows(LIST_RUNS, tenant=tenant, before=before, most=most)
    return tuple(RunSummary.model_validate(dict(row)) for row in rows)


async def load_report(database: Database, tenant: str, execution_id: UUID) -> RunReport | None:
    """Return a run of a tenant with its steps; None if there is no such run."""
    async with database.autocommit() as tx:
        row = await tx.row(LOAD_SUMMARY, tenant=tenant, execution_id=execution_id)
        steps = await tx.rows(LIST_STEPS, tenant=tenant, execution_id=execution_id)
    if row is None:
        return None
    began = row["started_at"] or row["created_at"]
    return RunReport(**row, steps=step_reports([_stored(step) for step in steps], began))


def _stored(row: RowMapping) -> StoredStep:
    return StoredStep(row["key"], row["epoch"], load(row["result"]), row["created_at"])

"""The statements of runs: every write after a claim carries the epoch, and is refused when it is stale."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import RowMapping

from agent_service.domain.runs import Arrival, ClaimedRun, HeldRun, Known, LoadedRun, NewRun, Queued, Step, title_of
from durable_work.leases import EXPIRED
from shared_clients.errors import Stale, Transient
from shared_clients.postgres import Database, Tx, sql
from shared_models.envelope import EventContext
from shared_models.frames import Cursor
from shared_models.requests import Principal, ResponseFailed, ResponseReady

CLAIMED = """
    r.tenant, r.execution_id, r.session_id, r.turn, r.epoch, r.tries, r.agent, r.content, r.principal, r.traceparent,
    r.cause, r.created_at, r.expires_at
"""
GATE = """
    NOT EXISTS (SELECT FROM runs e WHERE e.tenant = {r}.tenant AND e.session_id = {r}.session_id
                AND e.status IN ('queued', 'running') AND e.turn < {r}.turn)
    AND NOT EXISTS (SELECT FROM runs a WHERE a.tenant = {r}.tenant AND a.session_id = {r}.session_id
                    AND a.status = 'running')
    AND ({r}.turn = 1 OR EXISTS (SELECT FROM runs p WHERE p.tenant = {r}.tenant AND p.session_id = {r}.session_id
                                 AND p.turn = {r}.turn - 1))
    AND ({s}.arrived = {s}.last_turn
         OR (SELECT count(*) FROM runs c WHERE c.tenant = {r}.tenant AND c.session_id = {r}.session_id
             AND c.turn < {r}.turn) = {r}.turn - 1)
"""
"""A turn may start when every turn before it has come and none of them is still to do. Turns that came out of order
leave a hole (`arrived` lags behind `last_turn`); only then are they counted."""

INSERT_RUN = sql(f"""
    WITH n AS (
        SELECT CAST(:tenant AS text) AS tenant, CAST(:session_id AS uuid) AS session_id, CAST(:turn AS bigint) AS turn,
               CAST(:execution_id AS uuid) AS execution_id
    ), s AS (
        INSERT INTO sessions (tenant, session_id, owner, agent, title, arrived, last_turn)
        SELECT n.tenant, n.session_id, :owner, :agent, :title, 1, n.turn FROM n
        WHERE NOT EXISTS (SELECT FROM runs k WHERE k.tenant = n.tenant AND k.execution_id = n.execution_id)
        ON CONFLICT (tenant, session_id) DO UPDATE SET
            updated_at = now(), arrived = sessions.arrived + 1,
            owner = CASE WHEN sessions.owner = '' THEN excluded.owner ELSE sessions.owner END,
            last_turn = greatest(sessions.last_turn, excluded.last_turn),
            title = CASE WHEN sessions.title = '' THEN excluded.title ELSE sessions.title END
        RETURNING agent, arrived, last_turn
    ), start AS (
        SELECT CAST(:slot AS boolean) AND {GATE.format(r="n", s="s")} AND s.arrived = 1 + coalesce((
            SELECT o.arrived FROM sessions o WHERE o.tenant = n.tenant AND o.session_id = n.session_id), 0) AS now
        FROM n, s
    ), r AS (
        INSERT INTO runs AS r (tenant, execution_id, session_id, turn, status, epoch, tries, worker, started_at, agent,
                               content, principal, traceparent, cause, expires_at)
        SELECT n.tenant, n.execution_id, n.session_id, n.turn,
               CASE WHEN start.now THEN 'running' ELSE 'queued' END, CASE WHEN start.now THEN 1 ELSE 0 END,
               CASE WHEN start.now THEN 1 ELSE 0 END, CASE WHEN start.now THEN CAST(:worker AS uuid) END,
               CASE WHEN start.now THEN now() END, coalesce(:agent, s.agent), :content, CAST(:principal AS jsonb),
               :traceparent, :cause, :expires_at
        FROM n, s, start
        ON CONFLICT (tenant, execution_id) DO NOTHING
        RETURNING r.status, {CLAIMED}
    )
    SELECT EXISTS (SELECT FROM s) AS counted, r.* FROM (SELECT) AS always LEFT JOIN r ON true
""")
"""The gate sees the runs there were before this statement. If another turn came while it waited for the session's row,
which the two values of `arrived` tell, the gate has not seen that one, and the run is queued. A run that is there
already is not counted again."""
CLAIM_RUNS = sql(f"""
    WITH ready AS (
        SELECT r.tenant, r.execution_id, r.epoch, r.status
        FROM runs r JOIN sessions s ON s.tenant = r.tenant AND s.session_id = r.session_id
        WHERE (r.status = 'queued' AND {GATE.format(r="r", s="s")})
           OR (r.status = 'running' AND {EXPIRED.format(worker="r.worker")})
        ORDER BY r.created_at LIMIT :most
        FOR UPDATE OF s, r SKIP LOCKED
    )
    UPDATE runs r SET status = 'running', epoch = r.epoch + 1, tries = r.tries + 1, worker = :worker,
                      started_at = coalesce(r.started_at, now())
    FROM ready
    WHERE r.tenant = ready.tenant AND r.execution_id = ready.execution_id
      AND r.epoch = ready.epoch AND r.status = ready.status
    RETURNING {CLAIMED}
""")
CANCELLED = "EXISTS (SELECT FROM cancellations c WHERE c.tenant = r.tenant AND c.execution_id = r.execution_id)"
LOAD_RUN = sql(f"""
    SELECT {CANCELLED} AS cancelled, r.expires_at < now() AS expired,
           s.deleted_at IS NOT NULL AS session_deleted,
           (SELECT coalesce(array_agg(CAST(m.message AS text) ORDER BY m.turn, m.ordinal), '{{}}')
            FROM (SELECT turn, ordinal, message FROM messages
                  WHERE tenant = r.tenant AND session_id = r.session_id AND turn < r.turn
                  ORDER BY turn DESC, ordinal DESC LIMIT :window) m) AS window_messages,
           (SELECT coalesce(jsonb_agg(jsonb_build_array(key, CAST(result AS text), keep)
                                      ORDER BY created_at, key), '[]')
            FROM steps t WHERE t.tenant = r.tenant AND t.execution_id = r.execution_id) AS steps
    FROM runs r JOIN sessions s ON s.tenant = r.tenant AND s.session_id = r.session_id
    WHERE r.tenant = :tenant AND r.execution_id = :execution_id AND r.epoch = :epoch AND r.status = 'running'
""")
SAVE_STEP = sql("""
    WITH mine AS (
        SELECT FROM runs WHERE tenant = :tenant AND execution_id = :execution_id AND epoch = :epoch
                           AND status = 'running' FOR SHARE
    )
    INSERT INTO steps (tenant, execution_id, key, epoch, result, keep)
    SELECT :tenant, :execution_id, :key, :epoch, CAST(:result AS jsonb), :keep FROM mine
    ON CONFLICT (tenant, execution_id, key) DO UPDATE SET epoch = steps.epoch
""")
"""A step that is there already counts as written: its worker may not have heard of it, and asks again."""
STILL_MINE = sql("""
    SELECT execution_id FROM runs
    WHERE tenant = :tenant AND execution_id = :execution_id AND epoch = :epoch AND status = 'running'
""")
FINISH_RUN = sql("""
    WITH r AS (
        UPDATE runs SET status = :status, finished_at = :finished_at, worker = NULL, agent = coalesce(:agent, agent),
                        revision = :revision, answer = :answer, truncated = :truncated,
                        failure = CAST(:failure AS jsonb),
                        usage = CAST(:usage AS jsonb), terminal_frame = CAST(:terminal_frame AS jsonb)
        WHERE tenant = :tenant AND execution_id = :execution_id AND epoch = :epoch AND status = :old
        RETURNING tenant, session_id, turn, execution_id
    ), kept AS (
        INSERT INTO messages (tenant, session_id, turn, ordinal, execution_id, message)
        SELECT r.tenant, r.session_id, r.turn, m.ordinal, r.execution_id, CAST(m.message AS jsonb)
        FROM r, unnest(CAST(:messages AS text[])) WITH ORDINALITY AS m(message, ordinal)
    )
    UPDATE sessions s SET updated_at = now() FROM r WHERE s.tenant = r.tenant AND s.session_id = r.session_id
""")
BURY_RUN = sql("""
    WITH s AS (
        INSERT INTO sessions (tenant, session_id, owner, arrived, last_turn)
        SELECT CAST(:tenant AS text), CAST(:session_id AS uuid), '', 1, CAST(:turn AS bigint)
        WHERE NOT EXISTS (SELECT FROM runs k WHERE k.tenant = :tenant AND k.execution_id = :execution_id)
        ON CONFLICT (tenant, session_id) DO UPDATE SET
            arrived = sessions.arrived + 1, last_turn = greatest(sessions.last_turn, excluded.last_turn)
        RETURNING tenant
    ), r AS (
        INSERT INTO runs (tenant, execution_id, session_id, turn, status, content, principal, cause, expires_at,
                          finished_at, failure)
        SELECT s.tenant, CAST(:execution_id AS uuid), :session_id, :turn, 'failed', '', '{}', :cause, now(), now(),
               CAST(:failure AS jsonb) FROM s
        ON CONFLICT (tenant, execution_id) DO NOTHING
        RETURNING execution_id
    )
    SELECT EXISTS (SELECT FROM s) AS counted, r.execution_id FROM (SELECT) AS always LEFT JOIN r ON true
""")
HAND_BACK = sql("""
    UPDATE runs SET status = 'queued', worker = NULL, tries = tries - :unused
    WHERE tenant = :tenant AND execution_id = :execution_id AND epoch = :epoch AND status = 'running'
""")
HELD = sql(f"""
    SELECT r.tenant, r.execution_id, r.epoch, {CANCELLED} AS cancelled, r.expires_at < now() AS expired
    FROM runs r WHERE r.worker = :worker AND r.status = 'running'
""")
COUNT_BY_STATUS = sql("SELECT status, count(*) AS runs FROM runs WHERE status IN ('queued', 'running') GROUP BY status")


async def insert_run(tx: Tx, run: NewRun, owner: str, worker: UUID | None) -> Arrival:
    """Store a run; with a worker that has a free slot, and an open gate, it is claimed already.

    Raises:
        Transient: its twin came at this moment, and the session has counted both: the transaction has to end.
    """
    row = await tx.row(
        INSERT_RUN,
        tenant=run.tenant,
        execution_id=run.execution_id,
        session_id=run.session_id,
        turn=run.turn,
        owner=owner,
        agent=run.agent,
        title=title_of(run.content),
        content=run.content,
        principal=run.principal.model_dump_json(),
        traceparent=run.traceparent,
        cause=run.cause,
        expires_at=run.expires_at,
        slot=worker is not None,
        worker=worker,
    )
    assert row is not None
    if not _is_new(row, run.execution_id):
        return Known()
    return claimed(row) if row["status"] == "running" else Queued()


def _is_new(row: RowMapping, execution_id: UUID) -> bool:
    if row["counted"] and row["execution_id"] is None:
        raise Transient(f"two events of run {execution_id} came at the same moment")
    return bool(row["counted"])


async def claim_runs(tx: Tx, worker: UUID, most: int) -> Sequence[ClaimedRun]:
    """Take up to `most` runs that are ready, or whose worker is dead, under the next epoch."""
    return [claimed(row) for row in await tx.rows(CLAIM_RUNS, worker=worker, most=most)]


async def load_run(database: Database, run: ClaimedRun, window: int) -> LoadedRun:
    """Read what a claimed run needs: its session's last `window` messages and its journal.

    Raises:
        Stale: somebody else has claimed it.
    """
    async with database.reading() as tx:
        row = await tx.row(LOAD_RUN, **_owned(run), window=window)
    if row is None:
        raise _stale(run)
    steps = row["steps"]
    return LoadedRun(
        window=tuple(row["window_messages"]),
        steps=tuple(Step(key, result, Cursor.parse(keep)) for key, result, keep in steps),
        cancelled=row["cancelled"],
        expired=row["expired"],
        session_deleted=row["session_deleted"],
    )


async def save_step(database: Database, run: ClaimedRun, step: Step) -> None:
    """Write a finished step to the journal.

    Raises:
        Stale: somebody else has claimed the run; nothing was written.
    """
    async with database.reading() as tx:
        saved = await tx.run(SAVE_STEP, **_owned(run), key=step.key, result=step.result, keep=str(step.keep))
    if saved == 0:
        raise _stale(run)


async def still_mine(database: Database, run: ClaimedRun) -> bool:
    async with database.reading() as tx:
        return await tx.row(STILL_MINE, **_owned(run)) is not None


async def finish_run(
    tx: Tx,
    run: ClaimedRun,
    end: ResponseReady | ResponseFailed,
    *,
    terminal_frame: bytes,
    messages: Sequence[str] = (),
    queued: bool = False,
) -> None:
    """End a run by compare-and-set: its answer or failure, its messages, and the terminal frame that is due.

    Raises:
        Stale: it is somebody else's, or has ended already; nothing was written.
    """
    changed = await tx.run(
        FINISH_RUN,
        **_owned(run),
        old="queued" if queued else "running",
        status=end.status,
        finished_at=end.completed_at,
        agent=end.agent,
        revision=end.revision,
        answer=end.response.content if isinstance(end, ResponseReady) else None,
        truncated=end.response.truncated if isinstance(end, ResponseReady) else None,
        failure=end.error.model_dump_json() if isinstance(end, ResponseFailed) else None,
        usage=end.usage.model_dump_json(),
        terminal_frame=terminal_frame.decode(),
        messages=list(messages),
    )
    if changed == 0:
        raise _stale(run)


async def bury_run(tx: Tx, context: EventContext, end: ResponseFailed, cause: str) -> bool:
    """Put a failed run in the place of one that can never be made; False where it has been made.

    Raises:
        Transient: it is being made at this moment: the transaction has to end.
    """
    row = await tx.row(
        BURY_RUN,
        tenant=context.tenant,
        execution_id=context.request_id,
        session_id=context.session_id,
        turn=context.turn,
        cause=cause,
        failure=end.error.model_dump_json(),
    )
    assert row is not None
    return _is_new(row, context.request_id)


async def hand_back(database: Database, run: ClaimedRun | HeldRun, *, unused: bool = True) -> None:
    """Give a run up unfinished, so that somebody claims it; with `unused` that does not count as one of its tries."""
    async with database.reading() as tx:
        await tx.run(HAND_BACK, **_owned(run), unused=int(unused))


async def held(database: Database, worker: UUID) -> Sequence[HeldRun]:
    """Return the runs that this worker owns by the tables, whether it knows of them or not."""
    async with database.reading() as tx:
        return [HeldRun(**row) for row in await tx.rows(HELD, worker=worker)]


async def count_by_status(database: Database) -> dict[str, int]:
    async with database.reading() as tx:
        return {row["status"]: row["runs"] for row in await tx.rows(COUNT_BY_STATUS)}


def _owned(run: ClaimedRun | HeldRun) -> dict[str, object]:
    return {"tenant": run.tenant, "execution_id": run.execution_id, "epoch": run.epoch}


def _stale(run: ClaimedRun) -> Stale:
    return Stale(f"run {run.execution_id} is no longer held under epoch {run.epoch}")


def claimed(row: RowMapping) -> ClaimedRun:
    """Read the columns of `CLAIMED`."""
    expires_at: datetime = row["expires_at"]
    return ClaimedRun(
        tenant=row["tenant"],
        execution_id=row["execution_id"],
        session_id=row["session_id"],
        turn=row["turn"],
        epoch=row["epoch"],
        tries=row["tries"],
        agent=row["agent"],
        content=row["content"],
        principal=Principal.model_validate(row["principal"]),
        traceparent=row["traceparent"],
        cause=row["cause"],
        created_at=row["created_at"],
        expires_at=expires_at,
    )

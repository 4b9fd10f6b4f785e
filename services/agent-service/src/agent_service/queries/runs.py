"""The statements of runs: every write after a claim carries the epoch, and is refused when the epoch is stale."""

from collections.abc import Sequence
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import RowMapping

from agent_service.domain.runs import (
    AlreadyStored,
    ClaimedRun,
    DueTerminalFrame,
    InsertOutcome,
    LoadedRun,
    NewRun,
    OwnedRun,
    Queued,
    Step,
    title_of,
)
from durable_work.leases import EXPIRED
from shared_clients.errors import Stale, Transient
from shared_clients.postgres import Database, Tx, sql
from shared_models.envelope import EventContext
from shared_models.frames import Cursor
from shared_models.requests import Principal, ResponseFailed, ResponseReady

CLAIMED_COLUMNS = """
    r.tenant, r.execution_id, r.session_id, r.turn, r.epoch, r.tries, r.agent, r.content, r.principal, r.traceparent,
    r.cause, r.created_at, r.expires_at
"""
TURN_MAY_START = """
    NOT EXISTS (SELECT FROM runs earlier WHERE earlier.tenant = {run}.tenant
                AND earlier.session_id = {run}.session_id
                AND earlier.status IN ('queued', 'running') AND earlier.turn < {run}.turn)
    AND NOT EXISTS (SELECT FROM runs active WHERE active.tenant = {run}.tenant
                    AND active.session_id = {run}.session_id AND active.status = 'running')
    AND ({run}.turn = 1
         OR EXISTS (SELECT FROM runs previous WHERE previous.tenant = {run}.tenant
                    AND previous.session_id = {run}.session_id AND previous.turn = {run}.turn - 1))
    AND ({session}.arrived = {session}.last_turn
         OR (SELECT count(*) FROM runs counted WHERE counted.tenant = {run}.tenant
             AND counted.session_id = {run}.session_id AND counted.turn < {run}.turn) = {run}.turn - 1)
"""
"""A turn may start when every turn before it is stored and has ended. Turns that came out of order leave a hole
(`arrived` is less than `last_turn`); only then are the earlier turns counted."""

LOCK_SESSION = sql("""
    INSERT INTO sessions (tenant, session_id, owner, agent, title, arrived, last_turn)
    SELECT CAST(:tenant AS text), CAST(:session_id AS uuid), CAST(:owner AS text), CAST(:agent AS text),
           CAST(:title AS text), 1, CAST(:turn AS bigint)
    WHERE NOT EXISTS (SELECT FROM runs r WHERE r.tenant = :tenant AND r.execution_id = :execution_id)
    ON CONFLICT (tenant, session_id) DO UPDATE SET
        updated_at = now(), arrived = sessions.arrived + 1,
        last_turn = greatest(sessions.last_turn, excluded.last_turn),
        owner = CASE WHEN sessions.owner = '' THEN excluded.owner ELSE sessions.owner END,
        title = CASE WHEN sessions.title = '' THEN excluded.title ELSE sessions.title END
    RETURNING session_id
""")
"""Counts one more turn of a session and locks its row until the end of the transaction. A run that is stored already is
not counted again: the statement then returns no row."""
INSERT_RUN = sql(f"""
    WITH new_run AS (
        SELECT CAST(:tenant AS text) AS tenant, CAST(:session_id AS uuid) AS session_id, CAST(:turn AS bigint) AS turn
    ), decision AS (
        SELECT CAST(:worker AS uuid) IS NOT NULL AND {TURN_MAY_START.format(run="new_run", session="s")} AS starts,
               s.agent AS session_agent
        FROM new_run JOIN sessions s ON s.tenant = new_run.tenant AND s.session_id = new_run.session_id
    )
    INSERT INTO runs AS r (tenant, execution_id, session_id, turn, status, epoch, tries, worker, started_at, agent,
                           content, principal, traceparent, cause, expires_at)
    SELECT new_run.tenant, CAST(:execution_id AS uuid), new_run.session_id, new_run.turn,
           CASE WHEN starts THEN 'running' ELSE 'queued' END, CAST(starts AS integer), CAST(starts AS integer),
           CASE WHEN starts THEN CAST(:worker AS uuid) END, CASE WHEN starts THEN now() END,
           coalesce(:agent, session_agent), :content, CAST(:principal AS jsonb), :traceparent, :cause, :expires_at
    FROM new_run, decision
    ON CONFLICT (tenant, execution_id) DO NOTHING
    RETURNING r.status, {CLAIMED_COLUMNS}
""")
"""Comes after `LOCK_SESSION` as a statement of its own, for one more round trip: its snapshot then holds every run that
was stored while the lock was waited for. Other inserts and claims need the same lock, so the decision stays true."""
CLAIM_RUNS = sql(f"""
    WITH ready AS (
        SELECT r.tenant, r.execution_id, r.epoch, r.status
        FROM runs r JOIN sessions s ON s.tenant = r.tenant AND s.session_id = r.session_id
        WHERE (r.status = 'queued' AND {TURN_MAY_START.format(run="r", session="s")})
           OR (r.status = 'running' AND {EXPIRED.format(worker="r.worker")})
        ORDER BY r.created_at LIMIT :most
        FOR UPDATE OF s, r SKIP LOCKED
    )
    UPDATE runs r SET status = 'running', epoch = r.epoch + 1, tries = r.tries + 1, worker = :worker,
                      started_at = coalesce(r.started_at, now())
    FROM ready
    WHERE r.tenant = ready.tenant AND r.execution_id = ready.execution_id
      AND r.epoch = ready.epoch AND r.status = ready.status
    RETURNING {CLAIMED_COLUMNS}
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
    WITH owned_run AS (
        SELECT FROM runs WHERE tenant = :tenant AND execution_id = :execution_id AND epoch = :epoch
                           AND status = 'running' FOR SHARE
    )
    INSERT INTO steps (tenant, execution_id, key, epoch, result, keep)
    SELECT :tenant, :execution_id, :key, :epoch, CAST(:result AS jsonb), :keep FROM owned_run
    ON CONFLICT (tenant, execution_id, key) DO UPDATE SET epoch = steps.epoch
""")
"""A step that is stored already counts as written: its worker repeats a write whose answer was lost."""
STILL_OWNED = sql("""
    SELECT execution_id FROM runs
    WHERE tenant = :tenant AND execution_id = :execution_id AND epoch = :epoch AND status = 'running'
""")
FINISH_RUN = sql("""
    WITH finished_run AS (
        UPDATE runs SET status = :status, finished_at = :finished_at, worker = NULL, agent = coalesce(:agent, agent),
                        revision = :revision, answer = :answer, truncated = :truncated,
                        failure = CAST(:failure AS jsonb),
                        usage = CAST(:usage AS jsonb), terminal_frame = CAST(:terminal_frame AS jsonb)
        WHERE tenant = :tenant AND execution_id = :execution_id AND epoch = :epoch AND status = :old_status
        RETURNING tenant, session_id, turn, execution_id
    ), added_messages AS (
        INSERT INTO messages (tenant, session_id, turn, ordinal, execution_id, message)
        SELECT r.tenant, r.session_id, r.turn, m.ordinal, r.execution_id, CAST(m.message AS jsonb)
        FROM finished_run r, unnest(CAST(:messages AS text[])) WITH ORDINALITY AS m(message, ordinal)
    )
    UPDATE sessions s SET updated_at = now() FROM finished_run r
    WHERE s.tenant = r.tenant AND s.session_id = r.session_id
""")
INSERT_FAILED_RUN = sql("""
    INSERT INTO runs (tenant, execution_id, session_id, turn, status, content, principal, cause, expires_at,
                      finished_at, failure)
    VALUES (:tenant, :execution_id, :session_id, :turn, 'failed', '', '{}', :cause, now(), now(),
            CAST(:failure AS jsonb))
    ON CONFLICT (tenant, execution_id) DO NOTHING
""")
HAND_BACK = sql("""
    UPDATE runs SET status = 'queued', worker = NULL, tries = tries - :unused_tries
    WHERE tenant = :tenant AND execution_id = :execution_id AND epoch = :epoch AND status = 'running'
""")
LIST_OWNED_RUNS = sql(f"""
    SELECT r.tenant, r.execution_id, r.epoch, {CANCELLED} AS cancelled, r.expires_at < now() AS expired
    FROM runs r WHERE r.worker = :worker AND r.status = 'running'
""")


async def insert_run(tx: Tx, run: NewRun, owner: str, worker: UUID | None) -> InsertOutcome:
    """Store a run, claimed for `worker` if there is one and the run's turn may start.

    Raises:
        Transient: another transaction stores the same run now; the session has counted both, so roll back.
    """
    context = run.context
    if not await _lock_session(tx, context, owner=owner, agent=run.agent, title=title_of(run.content)):
        return AlreadyStored()
    row = await tx.row(
        INSERT_RUN,
        **_keys_of(context),
        agent=run.agent,
        content=run.content,
        principal=run.principal.model_dump_json(),
        traceparent=run.traceparent,
        cause=run.cause,
        expires_at=context.expires,
        worker=worker,
    )
    if row is None:
        raise _stored_twice(context)
    return claimed_run(row) if row["status"] == "running" else Queued()


async def insert_failed_run(tx: Tx, context: EventContext, end: ResponseFailed, cause: str) -> bool:
    """Store a failed run for a request that can never be run; return False if the run is stored already.

    Raises:
        Transient: another transaction stores the same run now; the session has counted both, so roll back.
    """
    if not await _lock_session(tx, context):
        return False
    failure = end.error.model_dump_json()
    if not await tx.run(INSERT_FAILED_RUN, **_keys_of(context), cause=cause, failure=failure):
        raise _stored_twice(context)
    return True


async def _lock_session(
    tx: Tx, context: EventContext, *, owner: str = "", agent: str | None = None, title: str = ""
) -> bool:
    """Count one more turn of a session and lock it; return False if the run is stored already."""
    keys = _keys_of(context)
    return await tx.row(LOCK_SESSION, **keys, owner=owner, agent=agent, title=title) is not None


async def claim_runs(tx: Tx, worker: UUID, most: int) -> Sequence[ClaimedRun]:
    """Claim up to `most` runs that may start, or whose worker is dead, under the next epoch."""
    return [claimed_run(row) for row in await tx.rows(CLAIM_RUNS, worker=worker, most=most)]


async def load_run(database: Database, run: ClaimedRun, window: int) -> LoadedRun:
    """Load the last `window` messages of a claimed run's session, and the run's journal.

    Raises:
        Stale: another worker has claimed the run.
    """
    async with database.autocommit() as tx:
        row = await tx.row(LOAD_RUN, **_claim_of(run), window=window)
    if row is None:
        raise _stale(run)
    return LoadedRun(
        window=tuple(row["window_messages"]),
        steps=tuple(Step(key, result, Cursor.parse(keep)) for key, result, keep in row["steps"]),
        cancelled=row["cancelled"],
        expired=row["expired"],
        session_deleted=row["session_deleted"],
    )


async def save_step(database: Database, run: ClaimedRun, step: Step) -> None:
    """Write a finished step to the journal.

    Raises:
        Stale: another worker has claimed the run; nothing was written.
    """
    async with database.autocommit() as tx:
        saved = await tx.run(SAVE_STEP, **_claim_of(run), key=step.key, result=step.result, keep=str(step.keep))
    if saved == 0:
        raise _stale(run)


async def still_owned(database: Database, run: ClaimedRun) -> bool:
    async with database.autocommit() as tx:
        return await tx.row(STILL_OWNED, **_claim_of(run)) is not None


async def finish_run(
    tx: Tx,
    run: ClaimedRun,
    end: ResponseReady | ResponseFailed,
    *,
    terminal_frame: DueTerminalFrame,
    messages: Sequence[str] = (),
    queued: bool = False,
) -> None:
    """Store the end of a run by compare-and-set: answer or failure, messages, and the due terminal frame.

    With `queued` the run has to be queued, else running.

    Raises:
        Stale: another worker owns the run, or it has ended; nothing was written.
    """
    changed = await tx.run(
        FINISH_RUN,
        **_claim_of(run),
        old_status="queued" if queued else "running",
        status=end.status,
        finished_at=end.completed_at,
        agent=end.agent,
        revision=end.revision,
        answer=end.response.content if isinstance(end, ResponseReady) else None,
        truncated=end.response.truncated if isinstance(end, ResponseReady) else None,
        failure=end.error.model_dump_json() if isinstance(end, ResponseFailed) else None,
        usage=end.usage.model_dump_json(),
        terminal_frame=to_json({"type": terminal_frame.type, "fields": terminal_frame.fields}).decode(),
        messages=list(messages),
    )
    if changed == 0:
        raise _stale(run)


async def hand_back(database: Database, run: ClaimedRun | OwnedRun, *, counts_as_try: bool = False) -> None:
    """Queue an unfinished run again, for any worker to claim."""
    async with database.autocommit() as tx:
        await tx.run(HAND_BACK, **_claim_of(run), unused_tries=0 if counts_as_try else 1)


async def list_owned_runs(database: Database, worker: UUID) -> Sequence[OwnedRun]:
    """List the running runs of a worker by their rows, also those that its process does not know of."""
    async with database.autocommit() as tx:
        return [OwnedRun(**row) for row in await tx.rows(LIST_OWNED_RUNS, worker=worker)]


def _claim_of(run: ClaimedRun | OwnedRun) -> dict[str, object]:
    return {"tenant": run.tenant, "execution_id": run.execution_id, "epoch": run.epoch}


def _keys_of(context: EventContext) -> dict[str, object]:
    return {
        "tenant": context.tenant,
        "execution_id": context.request_id,
        "session_id": context.session_id,
        "turn": context.turn,
    }


def _stale(run: ClaimedRun) -> Stale:
    return Stale(f"run {run.execution_id} is no longer owned under epoch {run.epoch}")


def _stored_twice(context: EventContext) -> Transient:
    return Transient(f"two transactions stored run {context.request_id} at the same moment")


def claimed_run(row: RowMapping) -> ClaimedRun:
    """Read the columns of `CLAIMED_COLUMNS`."""
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
        expires_at=row["expires_at"],
    )

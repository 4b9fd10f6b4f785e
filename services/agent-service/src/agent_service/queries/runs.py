"""The statements of runs: every write after a claim carries the epoch, and is refused when the epoch is stale."""

from collections.abc import Collection, Sequence
from typing import Final
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
from durable_work.jobs import JobTable
from shared_clients.errors import Stale, Transient
from shared_clients.postgres import Database, Tx, sql
from shared_models.envelope import EventContext
from shared_models.frames import Cursor
from shared_models.requests import Principal, ResponseFailed, ResponseReady

CLAIMED_COLUMNS: Final = """
    {run}.tenant, {run}.execution_id, {run}.session_id, {run}.turn, {run}.epoch, {run}.tries, {run}.agent,
    {run}.content, {run}.principal, {run}.traceparent, {run}.cause, {run}.created_at, {run}.expires_at
"""
RUNS: Final = JobTable(
    "runs",
    "execution_id",
    progressed="""EXISTS (SELECT FROM steps s WHERE s.tenant = j.tenant AND s.execution_id = j.execution_id
                             AND s.epoch = j.epoch)""",
    claimed="status = 'running', started_at = coalesce(j.started_at, now())",
    handed_back="status = 'queued'",
    returning=CLAIMED_COLUMNS.format(run="j"),
)
"""Runs as jobs. A finished step is progress: a run that loses its worker after each step is not given up."""

LOCK_SESSION = sql("""
    INSERT INTO sessions (tenant, session_id, owner, agent, title, current_run)
    SELECT CAST(:tenant AS text), CAST(:session_id AS uuid), CAST(:owner AS text), CAST(:agent AS text),
           CAST(:title AS text), CASE WHEN :runnable AND CAST(:turn AS bigint) = 1 THEN CAST(:execution_id AS uuid) END
    WHERE NOT EXISTS (SELECT FROM runs r WHERE r.tenant = :tenant AND r.execution_id = :execution_id)
    ON CONFLICT (tenant, session_id) DO UPDATE SET
        updated_at = now(),
        current_run = CASE WHEN sessions.current_run IS NULL AND sessions.next_turn = :turn AND :runnable
                           THEN CAST(:execution_id AS uuid) ELSE sessions.current_run END,
        owner = CASE WHEN sessions.owner = '' THEN excluded.owner ELSE sessions.owner END,
        title = CASE WHEN sessions.title = '' THEN excluded.title ELSE sessions.title END
    RETURNING agent, current_run IS NOT DISTINCT FROM :execution_id AS may_start
""")
"""Locks a session until the end of the transaction, and makes the new run its current one if the run's turn has come.
A session has one current run, which is ready or running; `next_turn` is the lowest turn that has neither ended nor
waits. For a run that is stored already the statement returns no row."""
INSERT_RUN = sql(f"""
    INSERT INTO runs AS r (tenant, execution_id, session_id, turn, status, epoch, tries, worker, started_at, ready_at,
                           agent, content, principal, traceparent, cause, expires_at)
    VALUES (:tenant, :execution_id, :session_id, :turn, CASE WHEN :claimed THEN 'running' ELSE 'queued' END,
            CAST(:claimed AS integer), CAST(:claimed AS integer), :worker, CASE WHEN :claimed THEN now() END,
            CASE WHEN :ready THEN now() END, :agent, :content, CAST(:principal AS jsonb), :traceparent, :cause,
            :expires_at)
    ON CONFLICT (tenant, execution_id) DO NOTHING
    RETURNING r.status, {CLAIMED_COLUMNS.format(run="r")}
""")
ADVANCE_SESSION = sql("""
    WITH RECURSIVE ended AS (
        SELECT next_turn AS turn FROM sessions WHERE tenant = :tenant AND session_id = :session_id
        UNION ALL
        SELECT ended.turn + 1 FROM ended
        WHERE EXISTS (SELECT FROM runs r WHERE r.tenant = :tenant AND r.session_id = :session_id
                      AND r.turn = ended.turn AND r.status NOT IN ('queued', 'running'))
    ), next_run AS (
        SELECT r.execution_id FROM runs r
        WHERE r.tenant = :tenant AND r.session_id = :session_id AND r.status = 'queued'
          AND r.turn <= (SELECT max(turn) FROM ended)
          AND EXISTS (SELECT FROM sessions s WHERE s.tenant = :tenant AND s.session_id = :session_id
                      AND s.current_run IS NULL)
        ORDER BY r.turn LIMIT 1
    ), made_ready AS (
        UPDATE runs r SET ready_at = now() FROM next_run
        WHERE r.tenant = :tenant AND r.execution_id = next_run.execution_id
    )
    UPDATE sessions s SET next_turn = (SELECT max(turn) FROM ended),
        current_run = coalesce(s.current_run, (SELECT execution_id FROM next_run))
    WHERE s.tenant = :tenant AND s.session_id = :session_id
""")
"""Runs as a statement of its own after the end of a run, which locked the session: its snapshot then includes the runs
that were stored while this transaction waited for the lock."""
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
        UPDATE runs SET status = :status, finished_at = :finished_at, worker = NULL, ready_at = NULL,
                        agent = coalesce(:agent, agent), revision = :revision, answer = :answer,
                        truncated = :truncated, failure = CAST(:failure AS jsonb),
                        usage = CAST(:usage AS jsonb), terminal_frame = CAST(:terminal_frame AS jsonb)
        WHERE tenant = :tenant AND execution_id = :execution_id AND epoch = :epoch AND status = :old_status
        RETURNING tenant, session_id, turn, execution_id
    ), added_messages AS (
        INSERT INTO messages (tenant, session_id, turn, ordinal, execution_id, message)
        SELECT r.tenant, r.session_id, r.turn, m.ordinal, r.execution_id, CAST(m.message AS jsonb)
        FROM finished_run r, unnest(CAST(:messages AS text[])) WITH ORDINALITY AS m(message, ordinal)
    )
    UPDATE sessions s SET updated_at = now(), current_run = nullif(s.current_run, r.execution_id) FROM finished_run r
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
    UPDATE runs SET status = 'queued', worker = NULL, ready_at = now(), tries = tries - :unused_tries
    WHERE tenant = :tenant AND execution_id = :execution_id AND epoch = :epoch AND status = 'running'
""")
LIST_OWNED_RUNS = sql(f"""
    SELECT r.tenant, r.execution_id, r.epoch, {CANCELLED} AS cancelled, r.expires_at < now() AS expired
    FROM runs r WHERE r.worker = :worker AND r.status = 'running'
""")


async def insert_run(tx: Tx, run: NewRun, owner: str, worker: UUID | None) -> InsertOutcome:
    """Store a run, claimed for `worker` if there is one and the run's turn may start.

    Raises:
        Transient: another transaction stores the same run now, so roll back.
    """
    context = run.context
    session = await _lock_session(tx, context, owner=owner, agent=run.agent, title=title_of(run.content))
    if session is None:
        return AlreadyStored()
    claimed = session["may_start"] and worker is not None
    row = await tx.row(
        INSERT_RUN,
        **_keys_of(context),
        claimed=claimed,
        ready=session["may_start"] and not claimed,
        worker=worker if claimed else None,
        agent=run.agent or session["agent"],
        content=run.content,
        principal=run.principal.model_dump_json(),
        traceparent=run.traceparent,
        cause=run.cause,
        expires_at=context.expires,
    )
    if row is None:
        raise _stored_twice(context)
    return claimed_run(row) if claimed else Queued()


async def insert_failed_run(tx: Tx, context: EventContext, end: ResponseFailed, cause: str) -> bool:
    """Store a failed run for a request that can never be run; return False if the run is stored already.

    Raises:
        Transient: another transaction stores the same run now, so roll back.
    """
    if await _lock_session(tx, context, runnable=False) is None:
        return False
    failure = end.error.model_dump_json()
    if not await tx.run(INSERT_FAILED_RUN, **_keys_of(context), cause=cause, failure=failure):
        raise _stored_twice(context)
    await tx.run(ADVANCE_SESSION, tenant=context.tenant, session_id=context.session_id)
    return True


async def _lock_session(
    tx: Tx, context: EventContext, *, owner: str = "", agent: str | None = None, title: str = "", runnable: bool = True
) -> RowMapping | None:
    """Lock a new run's session; return its agent and whether the run may start, or None if the run is stored."""
    keys = _keys_of(context)
    return await tx.row(LOCK_SESSION, **keys, owner=owner, agent=agent, title=title, runnable=runnable)


async def claim_runs(
    tx: Tx, worker: UUID, most: int, *, after: str = "", full: Collection[str] = ()
) -> Sequence[ClaimedRun]:
    """Claim up to `most` ready runs, or runs whose worker is dead, under the next epoch; see `JobTable.claim`."""
    return [claimed_run(row) for row in await RUNS.claim(tx, worker, most, after=after, full=full)]


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
    await tx.run(ADVANCE_SESSION, tenant=run.tenant, session_id=run.session_id)


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

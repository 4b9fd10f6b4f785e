"""The statements of sessions, as their owner lists, reads, renames and deletes them."""

from uuid import UUID

from sqlalchemy import RowMapping

from agent_service.domain.history import load_readable
from agent_service.domain.sessions import MessageView, PageCursor, SessionView, match_of
from agent_service.domain.transcript import StoredRun, message_views
from agent_service.queries.branches import BRANCH
from shared_clients.postgres import Database, Tx, sql
from shared_models.principals import Person
from shared_models.requests import Failure, Status, Truncation, Usage

COLUMNS = """
    s.session_id, s.title, s.agent, s.created_at, s.updated_at,
    (SELECT r.execution_id FROM runs r WHERE r.tenant = s.tenant AND r.session_id = s.session_id
     AND r.status IN ('queued', 'running', 'waiting') ORDER BY r.turn LIMIT 1) AS active_request_id,
    (SELECT r.principal->>'channel' FROM runs r WHERE r.tenant = s.tenant AND r.session_id = s.session_id
     AND r.turn = 1) AS channel
"""
SEARCHED = 1000
"""Conversations that a search reads at most."""
OWNED = "s.tenant = :tenant AND s.owner = :owner AND s.deleted_at IS NULL"

CREATE_SESSION = sql(f"""
    INSERT INTO sessions AS s (tenant, session_id, owner, agent, title)
    VALUES (:tenant, :session_id, :owner, :agent, :title) RETURNING {COLUMNS}
""")
LOAD_SESSION = sql(f"SELECT {COLUMNS} FROM sessions s WHERE {OWNED} AND s.session_id = :session_id")
LIST_SESSIONS = sql(f"""
    SELECT {COLUMNS} FROM sessions s
    WHERE {OWNED} AND (s.updated_at, s.session_id) < (
        coalesce(CAST(:updated_before AS timestamptz), 'infinity'),
        coalesce(CAST(:id_before AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
    ORDER BY s.updated_at DESC, s.session_id DESC LIMIT :most
""")
SEARCH_SESSIONS = sql(f"""
    WITH recent AS MATERIALIZED (
        SELECT s.* FROM sessions s WHERE {OWNED} ORDER BY s.updated_at DESC, s.session_id DESC LIMIT {SEARCHED}
    )
    SELECT {COLUMNS}, found.said FROM recent s CROSS JOIN LATERAL (
        SELECT NULL AS said, 0 AS rank WHERE s.title ILIKE :pattern
        UNION ALL
        (SELECT r.content, 1 FROM runs r
         WHERE r.tenant = s.tenant AND r.session_id = s.session_id AND r.content ILIKE :pattern
         ORDER BY r.turn DESC LIMIT 1)
        UNION ALL
        (SELECT part.said #>> '{{}}', 2 FROM messages m
         CROSS JOIN jsonb_path_query(m.message, '$.parts[*].content ? (@.type() == "string")') part(said)
         WHERE m.tenant = s.tenant AND m.session_id = s.session_id AND part.said #>> '{{}}' ILIKE :pattern
         ORDER BY m.turn DESC LIMIT 1)
        ORDER BY rank LIMIT 1
    ) found
    ORDER BY s.updated_at DESC, s.session_id DESC LIMIT :most
""")
"""Searches titles, questions, answers and results of tools, in the conversations that were used last."""
RENAME_SESSION = sql(f"""
    UPDATE sessions s SET title = :title WHERE {OWNED} AND s.session_id = :session_id RETURNING {COLUMNS}
""")
DELETE_SESSION = sql(f"UPDATE sessions s SET deleted_at = now() WHERE {OWNED} AND s.session_id = :session_id")
INSERT_DELETED = sql("""
    INSERT INTO sessions (tenant, session_id, owner, deleted_at) VALUES (:tenant, :session_id, :owner, now())
    ON CONFLICT (tenant, session_id) DO NOTHING
""")
CURRENT_BRANCH = BRANCH.format(
    session=":session_id", tip="SELECT max(turn) AS turn FROM runs WHERE tenant = :tenant AND session_id = :session_id"
)
LIST_TURNS = sql(f"""
    WITH RECURSIVE {CURRENT_BRANCH}, listed AS (
        SELECT r.*, coalesce(r.after_turn, r.turn - 1) AS follows,
               EXISTS (SELECT FROM branch b WHERE r.turn BETWEEN b.first AND b.last) AS current
        FROM runs r
        WHERE r.tenant = :tenant AND r.session_id = :session_id
          AND r.turn < coalesce(CAST(:before AS bigint), 9223372036854775807)
          AND (:all_branches OR EXISTS (SELECT FROM branch b WHERE r.turn BETWEEN b.first AND b.last))
        ORDER BY r.turn DESC LIMIT :most
    )
    SELECT r.execution_id, r.turn, r.status, r.content, r.answer, r.truncated, r.failure, r.created_at, r.started_at,
           r.finished_at, r.agent, r.revision, r.usage, r.follows, r.current,
           ARRAY(SELECT s.execution_id FROM runs s WHERE s.tenant = :tenant AND s.session_id = :session_id
                 AND (s.after_turn = r.follows OR (s.turn = r.follows + 1 AND s.after_turn IS NULL))
                 ORDER BY s.turn) AS branches,
           ARRAY(SELECT CAST(m.message AS text) FROM messages m WHERE m.tenant = :tenant
                 AND m.session_id = :session_id AND m.turn = r.turn ORDER BY m.ordinal) AS messages
    FROM listed r ORDER BY r.turn
""")


async def create_session(
    tx: Tx, tenant: str, owner: Person, session_id: UUID, *, title: str, agent: str | None
) -> SessionView:
    row = await tx.row(CREATE_SESSION, tenant=tenant, owner=owner.key, session_id=session_id, title=title, agent=agent)
    return SessionView.model_validate(dict(row or {}))


async def load_session(database: Database, tenant: str, owner: Person, session_id: UUID) -> SessionView | None:
    async with database.autocommit() as tx:
        row = await tx.row(LOAD_SESSION, tenant=tenant, owner=owner.key, session_id=session_id)
    return None if row is None else SessionView.model_validate(dict(row))


async def list_sessions(
    database: Database, tenant: str, owner: Person, *, before: PageCursor | None, most: int
) -> tuple[SessionView, ...]:
    """Return a page of the owner's sessions after the cursor `before`, the last used first."""
    async with database.autocommit() as tx:
        rows = await tx.rows(
            LIST_SESSIONS,
            tenant=tenant,
            owner=owner.key,
            updated_before=before.updated_at if before else None,
            id_before=before.session_id if before else None,
            most=most,
        )
    return tuple(SessionView.model_validate(dict(row)) for row in rows)


async def search_sessions(
    database: Database, tenant: str, owner: Person, *, words: str, most: int
) -> tuple[SessionView, ...]:
    """Return those of the owner's sessions in which the words were said or are in the title, the last used first."""
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    async with database.autocommit() as tx:
        rows = await tx.rows(SEARCH_SESSIONS, tenant=tenant, owner=owner.key, pattern=f"%{escaped}%", most=most)
    return tuple(SessionView.model_validate({**row, "match": match_of(row["said"], words)}) for row in rows)


async def rename_session(
    database: Database, tenant: str, owner: Person, session_id: UUID, *, title: str
) -> SessionView | None:
    async with database.autocommit() as tx:
        row = await tx.row(RENAME_SESSION, tenant=tenant, owner=owner.key, session_id=session_id, title=title)
    return None if row is None else SessionView.model_validate(dict(row))


async def delete_session(tx: Tx, tenant: str, owner: Person, session_id: UUID) -> bool:
    """Hide a session for good, so that later requests in it are refused; return False if there is none."""
    return await tx.run(DELETE_SESSION, tenant=tenant, owner=owner.key, session_id=session_id) == 1


async def insert_deleted(tx: Tx, tenant: str, owner: Person, session_id: UUID) -> bool:
    """Store a session as deleted before its first request arrives; return False for one that is stored already."""
    return await tx.run(INSERT_DELETED, tenant=tenant, owner=owner.key, session_id=session_id) == 1


async def list_messages(
    database: Database, tenant: str, session_id: UUID, *, before: int | None, most: int, all_branches: bool = False
) -> tuple[MessageView, ...]:
    """Return the messages of the last `most` turns before the turn `before`, oldest first."""
    async with database.autocommit() as tx:
        rows = await tx.rows(
            LIST_TURNS, tenant=tenant, session_id=session_id, before=before, most=most, all_branches=all_branches
        )
    return tuple(view for row in rows for view in message_views(_stored_run(row)))


def _stored_run(row: RowMapping) -> StoredRun:
    return StoredRun(
        request_id=row["execution_id"],
        turn=row["turn"],
        status=Status.ACCEPTED if row["status"] == "queued" else Status(row["status"]),
        question=row["content"],
        answer=row["answer"],
        truncated=None if row["truncated"] is None else Truncation(row["truncated"]),
        failure=None if row["failure"] is None else Failure.model_validate(row["failure"]),
        messages=load_readable(row["messages"]),
        after_turn=row["follows"],
        current=row["current"],
        branches=tuple(row["branches"]),
        agent=row["agent"],
        revision=row["revision"],
        usage=None if row["usage"] is None else Usage.model_validate(row["usage"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )

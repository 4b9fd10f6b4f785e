"""The statements of sessions, as their owner lists, reads, renames and deletes them."""

from uuid import UUID

from agent_service.domain.sessions import MessageView, PageCursor, SessionView
from shared_clients.postgres import Database, Tx, sql
from shared_models.principals import Person
from shared_models.requests import STATES, Status

COLUMNS = """
    s.session_id, s.title, s.agent, s.created_at, s.updated_at,
    (SELECT r.execution_id FROM runs r WHERE r.tenant = s.tenant AND r.session_id = s.session_id
     AND r.status IN ('queued', 'running', 'waiting') ORDER BY r.turn LIMIT 1) AS active_request_id
"""
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
RENAME_SESSION = sql(f"""
    UPDATE sessions s SET title = :title WHERE {OWNED} AND s.session_id = :session_id RETURNING {COLUMNS}
""")
DELETE_SESSION = sql(f"UPDATE sessions s SET deleted_at = now() WHERE {OWNED} AND s.session_id = :session_id")
INSERT_DELETED = sql("""
    INSERT INTO sessions (tenant, session_id, owner, deleted_at) VALUES (:tenant, :session_id, :owner, now())
    ON CONFLICT (tenant, session_id) DO NOTHING
""")
LIST_TURNS = sql("""
    SELECT r.execution_id, r.turn, r.status, r.content, r.answer, r.truncated, r.failure, r.created_at, r.finished_at
    FROM runs r
    WHERE r.tenant = :tenant AND r.session_id = :session_id
      AND r.turn < coalesce(CAST(:before AS bigint), 9223372036854775807)
    ORDER BY r.turn DESC LIMIT :most
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


async def rename_session(
    database: Database, tenant: str, owner: Person, session_id: UUID, *, title: str
) -> SessionView | None:
    async with database.autocommit() as tx:
        row = await tx.row(RENAME_SESSION, tenant=tenant, owner=owner.key, session_id=session_id, title=title)
    return None if row is None else SessionView.model_validate(dict(row))


async def delete_session(tx: Tx, tenant: str, owner: Person, session_id: UUID) -> bool:
    """Hide a session for good, so that later requests in it are refused; return False if there is none."""
    return await tx.run(DELETE_SESSION, tenant=tenant, owner=owner.key, session_id=session_id) == 1


async def insert_deleted(tx: Tx, tenant: str, owner: Person, session_id: UUID) -> None:
    """Store a session as deleted before its first request arrives; do nothing for one that is known."""
    await tx.run(INSERT_DELETED, tenant=tenant, owner=owner.key, session_id=session_id)


async def list_messages(
    database: Database, tenant: str, session_id: UUID, *, before: int | None, most: int
) -> tuple[MessageView, ...]:
    """Return the messages of the last `most` turns before the turn `before`, oldest first."""
    async with database.autocommit() as tx:
        rows = await tx.rows(LIST_TURNS, tenant=tenant, session_id=session_id, before=before, most=most)
    messages: list[MessageView] = []
    for row in reversed(rows):
        status = Status.ACCEPTED if row["status"] == "queued" else Status(row["status"])
        common = {"turn": row["turn"], "request_id": row["execution_id"], "status": status}
        user_id, answer_id = f"{row['execution_id']}:user", f"{row['execution_id']}:assistant"
        messages.append(
            MessageView(id=user_id, role="user", content=row["content"], created_at=row["created_at"], **common)
        )
        if STATES[status].terminal:
            answer = row["answer"] if row["answer"] is not None else row["failure"]["message"]
            messages.append(
                MessageView(
                    id=answer_id,
                    role="assistant",
                    content=answer,
                    truncated=row["truncated"],
                    created_at=row["finished_at"],
                    **common,
                )
            )
    return tuple(messages)

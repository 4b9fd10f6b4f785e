"""The statements of stored requests: views for their owners, cancellations, and reported statuses."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import RowMapping

from request_manager.domain import Place, StoredRequest
from shared_clients.postgres import Database, Tx, sql
from shared_models.envelope import EventContext
from shared_models.requests import (
    STATES,
    Failure,
    Principal,
    RequestView,
    Response,
    ResponseFailed,
    ResponseReady,
    RunChanged,
    Status,
    Usage,
)

VIEW: Final = """
    SELECT request_id, session_id, turn, status, response, error, agent, revision, usage, created_at, completed_at,
           retry_of
    FROM requests q
"""
SESSION_LIVES: Final = """NOT EXISTS (
    SELECT FROM session_turns s
    WHERE s.tenant = q.tenant AND s.session_id = q.session_id AND s.deleted_at IS NOT NULL
)"""
"""A condition of every statement that reads a request `q`: its session was not deleted."""
LOAD_VIEW = sql(f"{VIEW} WHERE tenant = :tenant AND owner = :owner AND request_id = :request_id AND {SESSION_LIVES}")
LIST_ENDED_VIEWS = sql(f"""
    {VIEW} WHERE tenant = :tenant AND request_id = ANY(:request_ids) AND completed_at IS NOT NULL AND {SESSION_LIVES}
""")
LIST_VIEWS = sql(f"""
    {VIEW}
    WHERE tenant = :tenant AND owner = :owner
      AND request_id < coalesce(CAST(:before AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      AND session_id = coalesce(CAST(:session_id AS uuid), session_id) AND {SESSION_LIVES}
    ORDER BY request_id DESC LIMIT :limit
""")
LOAD_PLACE = sql(f"""
    SELECT session_id, turn, after_turn FROM requests q
    WHERE tenant = :tenant AND owner = :owner AND request_id = :request_id AND {SESSION_LIVES}
""")
LOAD_REQUEST = sql(f"""
    SELECT session_id, turn, after_turn, status, principal, content, agent, metadata, (
        SELECT n.request_id FROM requests n WHERE n.tenant = q.tenant AND n.retry_of = q.request_id
    ) AS retried_as
    FROM requests q WHERE tenant = :tenant AND request_id = :request_id AND {SESSION_LIVES}
""")
DELETE_SESSION = sql("""
    UPDATE session_turns SET deleted_at = coalesce(deleted_at, now())
    WHERE tenant = :tenant AND owner = :owner AND session_id = :session_id
""")
LIST_PENDING = sql("""
    SELECT request_id FROM requests
    WHERE tenant = :tenant AND owner = :owner AND session_id = :session_id AND completed_at IS NULL
""")
STORE_CANCELLATION = sql("""
    UPDATE requests SET cancel_asked_at = now()
    WHERE tenant = :tenant AND owner = :owner AND request_id = :request_id
      AND completed_at IS NULL AND cancel_asked_at IS NULL
    RETURNING session_id, turn, expires_at
""")
STORE_RUN_STATUS = sql("""
    UPDATE requests SET status = :status, status_epoch = :epoch
    WHERE tenant = :tenant AND request_id = :request_id AND completed_at IS NULL
      AND (status_epoch < :epoch OR (status_epoch = :epoch AND status = ANY(:lower)))
""")
SETTLE_REQUEST = sql("""
    UPDATE requests SET status = :status, completed_at = :completed_at, agent = coalesce(:agent, agent),
        revision = :revision, response = CAST(:response AS jsonb), error = CAST(:error AS jsonb),
        usage = CAST(:usage AS jsonb)
    WHERE tenant = :tenant AND request_id = :request_id AND completed_at IS NULL
""")


async def load_view(database: Database, caller: Principal, request_id: UUID) -> RequestView | None:
    """Return one of the caller's requests; None where the caller has no such request."""
    async with database.autocommit() as tx:
        row = await tx.row(LOAD_VIEW, tenant=caller.tenant, owner=caller.person.key, request_id=request_id)
    return None if row is None else _view(row)


async def load_place(database: Database, caller: Principal, request_id: UUID) -> Place | None:
    """Return the place of one of the caller's requests in its session; None where there is no such request."""
    async with database.autocommit() as tx:
        row = await tx.row(LOAD_PLACE, tenant=caller.tenant, owner=caller.person.key, request_id=request_id)
    return None if row is None else _place(row)


async def list_views(
    database: Database, caller: Principal, *, session_id: UUID | None, before: UUID | None, limit: int
) -> Sequence[RequestView]:
    """Return a page of the caller's requests that are older than `before`, newest first."""
    async with database.autocommit() as tx:
        rows = await tx.rows(
            LIST_VIEWS,
            tenant=caller.tenant,
            owner=caller.person.key,
            session_id=session_id,
            before=before,
            limit=limit,
        )
    return [_view(row) for row in rows]


async def list_ended_views(database: Database, tenant: str, request_ids: Sequence[UUID]) -> Sequence[RequestView]:
    """Return those of a tenant's requests that have ended, of all owners: for services, never for a caller."""
    async with database.autocommit() as tx:
        rows = await tx.rows(LIST_ENDED_VIEWS, tenant=tenant, request_ids=list(request_ids))
    return [_view(row) for row in rows]


async def load_request(database: Database, tenant: str, request_id: UUID) -> StoredRequest | None:
    """Return a tenant's request with its content, of any owner: for operators, never for a caller."""
    async with database.autocommit() as tx:
        row = await tx.row(LOAD_REQUEST, tenant=tenant, request_id=request_id)
    if row is None:
        return None
    return StoredRequest(
        place=_place(row),
        status=Status(row["status"]),
        principal=Principal.model_validate(row["principal"]),
        content=row["content"],
        agent=row["agent"],
        metadata=row["metadata"],
        retried_as=row["retried_as"],
    )


async def delete_session(database: Database, caller: Principal, session_id: UUID) -> bool:
    """Hide a session's requests for good; return False where the caller has no such session."""
    async with database.autocommit() as tx:
        return await tx.run(DELETE_SESSION, tenant=caller.tenant, owner=caller.person.key, session_id=session_id) == 1


async def list_pending(database: Database, caller: Principal, session_id: UUID) -> Sequence[UUID]:
    """Return the requests of a session that have not ended."""
    async with database.autocommit() as tx:
        rows = await tx.rows(LIST_PENDING, tenant=caller.tenant, owner=caller.person.key, session_id=session_id)
    return [row["request_id"] for row in rows]


async def store_cancellation(tx: Tx, caller: Principal, request_id: UUID) -> EventContext | None:
    """Store that the caller cancels a request, and return the context of the event for it.

    Returns None, and changes nothing, for a request that has ended, is cancelled already or is not the caller's.
    """
    row = await tx.row(STORE_CANCELLATION, tenant=caller.tenant, owner=caller.person.key, request_id=request_id)
    if row is None:
        return None
    return EventContext.of_request(request_id, row["session_id"], caller.tenant, row["turn"], row["expires_at"])


async def store_run_status(tx: Tx, tenant: str, request_id: UUID, change: RunChanged) -> None:
    """Store a run's status, unless a later one is stored already (`shared_models.requests.settles`)."""
    await tx.run(
        STORE_RUN_STATUS,
        tenant=tenant,
        request_id=request_id,
        status=change.status,
        epoch=change.epoch,
        lower=[status.value for status, state in STATES.items() if state.rank < STATES[change.status].rank],
    )


async def settle_request(tx: Tx, tenant: str, request_id: UUID, end: ResponseReady | ResponseFailed) -> None:
    """Store a request's end; a request that has ended already stays as it is."""
    await tx.run(
        SETTLE_REQUEST,
        tenant=tenant,
        request_id=request_id,
        status=end.status,
        completed_at=end.completed_at,
        agent=end.agent,
        revision=end.revision,
        response=end.response.model_dump_json() if isinstance(end, ResponseReady) else None,
        error=end.error.model_dump_json() if isinstance(end, ResponseFailed) else None,
        usage=end.usage.model_dump_json(),
    )


def _place(row: RowMapping) -> Place:
    return Place(row["session_id"], row["turn"], row["after_turn"])


def _view(row: RowMapping) -> RequestView:
    return RequestView(
        request_id=row["request_id"],
        session_id=row["session_id"],
        turn=row["turn"],
        status=Status(row["status"]),
        response=None if row["response"] is None else Response.model_validate(row["response"]),
        error=None if row["error"] is None else Failure.model_validate(row["error"]),
        agent=row["agent"],
        revision=row["revision"],
        usage=None if row["usage"] is None else Usage.model_validate(row["usage"]),
        created_at=row["created_at"],
        completed_at=row["completed_at"],
        retry_of=row["retry_of"],
    )

"""All SQL of request-manager, one function per named statement."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import RowMapping

from request_manager.domain import (
    Accepted,
    Balance,
    Draft,
    EndedRequest,
    KeyReused,
    Outcome,
    Replayed,
    SilentRequest,
    UnknownSession,
)
from shared_clients.bus.port import Message
from shared_clients.postgres import Database, Tx, UniqueViolation, sql
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

ACCEPT: Final = """
    WITH known AS (
        SELECT request_id, session_id, body_hash FROM idempotency_keys
        WHERE tenant = $1 AND caller = $2 AND key = $3
    ), raised AS (
        UPDATE session_turns SET turn = turn + 1
        WHERE tenant = $1 AND session_id = $6 AND owner = $7 AND NOT $8::boolean AND NOT EXISTS (SELECT FROM known)
        RETURNING turn
    ), opened AS (
        INSERT INTO session_turns (tenant, session_id, owner, turn)
        SELECT $1, $6, $7, 1 WHERE $8::boolean AND NOT EXISTS (SELECT FROM known)
        ON CONFLICT (tenant, session_id) DO UPDATE SET turn = session_turns.turn + 1
        WHERE session_turns.owner = excluded.owner
        RETURNING turn
    ), numbered AS (
        SELECT turn FROM raised UNION ALL SELECT turn FROM opened
    ), keyed AS (
        INSERT INTO idempotency_keys (tenant, caller, key, body_hash, request_id, session_id)
        SELECT $1, $2, $3, $4, $5, $6 FROM numbered WHERE $3::text IS NOT NULL
    ), written AS (
        INSERT INTO requests (tenant, request_id, session_id, turn, owner, principal, content, agent, metadata,
                              expires_at, retry_of)
        SELECT $1, $5, $6, turn, $7, $9::jsonb, $10, $11, $12::jsonb, $13, $19 FROM numbered
    ), told AS (
        INSERT INTO outbox (id, tenant, topic, key, attributes, data)
        SELECT $14, $1, $15, $16, $17::jsonb || jsonb_build_object('turn', turn::text), $18 FROM numbered
    )
    SELECT (SELECT turn FROM numbered) AS turn, known.request_id, known.session_id, known.body_hash
    FROM (SELECT) AS always LEFT JOIN known ON true
"""

VIEW: Final = """
    SELECT request_id, session_id, turn, status, response, error, agent, revision, usage, created_at, completed_at,
           retry_of
    FROM requests
"""
LOAD_VIEW = sql(f"{VIEW} WHERE tenant = :tenant AND owner = :owner AND request_id = :request_id")
ENDED_VIEWS = sql(f"""
    {VIEW} WHERE tenant = :tenant AND request_id = ANY(:request_ids) AND completed_at IS NOT NULL
""")
LIST_VIEWS = sql(f"""
    {VIEW}
    WHERE tenant = :tenant AND owner = :owner
      AND request_id < coalesce(CAST(:before AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      AND session_id = coalesce(CAST(:session_id AS uuid), session_id)
    ORDER BY request_id DESC LIMIT :most
""")
LOAD_ENDED = sql("""
    SELECT session_id, status, principal, content, agent, metadata, (
        SELECT n.request_id FROM requests n WHERE n.tenant = q.tenant AND n.retry_of = q.request_id
    ) AS retried_as
    FROM requests q WHERE tenant = :tenant AND request_id = :request_id
""")
ASK_TO_CANCEL = sql("""
    UPDATE requests SET cancel_asked_at = now()
    WHERE tenant = :tenant AND owner = :owner AND request_id = :request_id
      AND completed_at IS NULL AND cancel_asked_at IS NULL
    RETURNING session_id, turn, expires_at
""")
SETTLE_REQUEST = sql("""
    UPDATE requests SET status = :status, completed_at = :completed_at, agent = coalesce(:agent, agent),
        revision = :revision, response = CAST(:response AS jsonb), error = CAST(:error AS jsonb),
        usage = CAST(:usage AS jsonb)
    WHERE tenant = :tenant AND request_id = :request_id AND completed_at IS NULL
""")
NOTE_RUN = sql("""
    UPDATE requests SET status = :status, status_epoch = :epoch
    WHERE tenant = :tenant AND request_id = :request_id AND completed_at IS NULL
      AND (status_epoch < :epoch OR (status_epoch = :epoch AND status = ANY(:lower)))
""")
FORGET_KEYS = sql("DELETE FROM idempotency_keys WHERE created_at < now() - CAST(:age AS interval)")
SILENT = sql("""
    WITH due AS (
        SELECT q.tenant, q.request_id, q.session_id, q.turn, q.principal, q.content, q.agent, q.metadata, q.expires_at,
               q.cancel_asked_at IS NOT NULL AS cancel_asked
        FROM requests q LEFT JOIN inquiries i ON i.request_id = q.request_id
        WHERE q.completed_at IS NULL AND q.created_at < now() - CAST(:silence AS interval)
          AND (q.status = 'accepted' OR q.expires_at < now() - CAST(:silence AS interval)
               OR q.cancel_asked_at < now() - CAST(:silence AS interval))
          AND (i.next_at IS NULL OR i.next_at <= now())
          AND NOT EXISTS (SELECT FROM outbox o WHERE o.state = 'pending' AND o.created_at < now() - interval '10 s')
        ORDER BY q.created_at LIMIT :most
        FOR UPDATE OF q SKIP LOCKED
    ), noted AS (
        INSERT INTO inquiries AS i (request_id, asked, next_at)
        SELECT request_id, 1, now() + 2 * CAST(:silence AS interval) FROM due
        ON CONFLICT (request_id) DO UPDATE SET asked = i.asked + 1,
            next_at = now() + CAST(:silence AS interval) * (0.5 + random()) * power(2, least(i.asked + 1, 5))
    )
    SELECT * FROM due
""")
"""Nothing is asked again while the bus does not take what this service has to say: it will be said, once."""
FORGET_INQUIRIES = sql("""
    DELETE FROM inquiries i USING requests q WHERE q.request_id = i.request_id AND q.completed_at IS NOT NULL
""")
COUNT_REQUESTS = sql("""
    SELECT (SELECT coalesce(sum(turn), 0) FROM session_turns) AS accepted,
           (SELECT count(*) FROM requests) - count(*) AS terminal,
           count(*) AS pending,
           count(*) FILTER (WHERE expires_at < now() - CAST(:silence AS interval)) AS overdue
    FROM requests WHERE completed_at IS NULL
""")
"""Turns are counted where they are given and requests where they are stored, in one snapshot. Of the requests that have
ended an index is read, and the rows only where no vacuum has been since."""
COUNT_PENDING = sql("SELECT tenant, count(*) AS pending FROM requests WHERE completed_at IS NULL GROUP BY tenant")


async def insert_request(database: Database, draft: Draft, told: Message) -> Outcome:
    """Make a request durable: its idempotency key, turn, row and outbox event in one statement and one commit.

    An insert that lost the race for its key to a twin looks again, and finds the twin's row.
    """
    try:
        found = await _accept(database, draft, told)
    except UniqueViolation:
        found = await _accept(database, draft, told)
    if found["request_id"] is not None:
        if found["body_hash"] != draft.body_hash:
            return KeyReused()
        return Replayed(found["request_id"], found["session_id"])
    if found["turn"] is None:
        return UnknownSession()
    return Accepted(draft.request_id, draft.session_id, found["turn"])


async def _accept(database: Database, draft: Draft, told: Message) -> Mapping[str, Any]:
    row = await database.fetch_row(
        ACCEPT,
        draft.principal.tenant,
        draft.caller,
        draft.key,
        draft.body_hash,
        draft.request_id,
        draft.session_id,
        draft.owner,
        draft.opens_session,
        draft.principal.model_dump_json(),
        draft.content,
        draft.agent,
        to_json(draft.metadata).decode(),
        draft.expires_at,
        told.attributes["id"],
        told.topic,
        told.key,
        to_json(told.attributes).decode(),
        told.data,
        draft.retry_of,
    )
    assert row is not None
    return row


async def load_view(database: Database, tenant: str, owner: str, request_id: UUID) -> RequestView | None:
    async with database.autocommit() as tx:
        row = await tx.row(LOAD_VIEW, tenant=tenant, owner=owner, request_id=request_id)
    return None if row is None else _view(row)


async def ended_views(database: Database, tenant: str, ids: Sequence[UUID]) -> Sequence[RequestView]:
    """Return those of a tenant's requests that have ended, whoever owns them: for services, never for a caller."""
    async with database.autocommit() as tx:
        rows = await tx.rows(ENDED_VIEWS, tenant=tenant, request_ids=list(ids))
    return [_view(row) for row in rows]


async def load_ended(database: Database, tenant: str, request_id: UUID) -> EndedRequest | None:
    """Return a request as it may be asked again, whoever owns it: for operators, never for a caller."""
    async with database.autocommit() as tx:
        row = await tx.row(LOAD_ENDED, tenant=tenant, request_id=request_id)
    if row is None:
        return None
    return EndedRequest(
        **{**row, "status": Status(row["status"]), "principal": Principal.model_validate(row["principal"])}
    )


async def list_views(
    database: Database, tenant: str, owner: str, *, session_id: UUID | None, before: UUID | None, most: int
) -> Sequence[RequestView]:
    """Return a page of the owner's requests, newest first, older than `before`."""
    async with database.autocommit() as tx:
        rows = await tx.rows(LIST_VIEWS, tenant=tenant, owner=owner, session_id=session_id, before=before, most=most)
    return [_view(row) for row in rows]


async def ask_to_cancel(tx: Tx, tenant: str, owner: str, request_id: UUID) -> RowMapping | None:
    """Note that the owner wants a request stopped; return its session, turn and deadline the first time, else None."""
    return await tx.row(ASK_TO_CANCEL, tenant=tenant, owner=owner, request_id=request_id)


async def settle_request(tx: Tx, tenant: str, request_id: UUID, end: ResponseReady | ResponseFailed) -> bool:
    """Store a request's end, once: whatever comes later changes nothing."""
    changed = await tx.run(
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
    return changed == 1


async def note_run(tx: Tx, tenant: str, request_id: UUID, change: RunChanged) -> None:
    """Show a run's state, unless something later is known already (`shared_models.requests.settles`)."""
    await tx.run(
        NOTE_RUN,
        tenant=tenant,
        request_id=request_id,
        status=change.status,
        epoch=change.epoch,
        lower=[status.value for status, state in STATES.items() if state.rank < STATES[change.status].rank],
    )


async def forget_keys(database: Database, age: timedelta) -> int:
    async with database.autocommit() as tx:
        return await tx.run(FORGET_KEYS, age=age)


async def silent_requests(tx: Tx, silence: timedelta, most: int) -> Sequence[SilentRequest]:
    """Lock, note and return up to `most` requests of which nothing was heard when something should have been."""
    return [SilentRequest(**row) for row in await tx.rows(SILENT, silence=silence, most=most)]


async def forget_inquiries(database: Database) -> int:
    async with database.autocommit() as tx:
        return await tx.run(FORGET_INQUIRIES)


async def count_requests(database: Database, silence: timedelta) -> Balance:
    async with database.autocommit() as tx:
        row = await tx.row(COUNT_REQUESTS, silence=silence)
    assert row is not None
    return Balance(**{name: int(count) for name, count in row.items()})


async def pending_by_tenant(database: Database) -> dict[str, int]:
    """Return how many requests of each tenant have not ended."""
    async with database.autocommit() as tx:
        return {row["tenant"]: row["pending"] for row in await tx.rows(COUNT_PENDING)}


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

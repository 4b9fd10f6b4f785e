"""The statement that makes a request durable, and the end of an Idempotency-Key's life."""

from datetime import timedelta
from typing import Final

from pydantic_core import to_json

from request_manager.domain import Accepted, AcceptOutcome, KeyReused, Replayed, RequestDraft, UnknownSession
from shared_clients.bus.port import Message
from shared_clients.postgres import Database, UniqueViolation, sql

ACCEPT: Final = """
    WITH earlier_key AS (
        SELECT request_id, session_id, body_hash FROM idempotency_keys
        WHERE tenant = $1 AND caller = $2 AND key = $3
    ), known_session AS (
        UPDATE session_turns SET turn = turn + 1
        WHERE tenant = $1 AND session_id = $6 AND owner = $7 AND NOT $8::boolean AND deleted_at IS NULL
          AND NOT EXISTS (SELECT FROM earlier_key)
        RETURNING turn
    ), opened_session AS (
        INSERT INTO session_turns (tenant, session_id, owner, turn)
        SELECT $1, $6, $7, 1 WHERE $8::boolean AND NOT EXISTS (SELECT FROM earlier_key)
        ON CONFLICT (tenant, session_id) DO UPDATE SET turn = session_turns.turn + 1
        WHERE session_turns.owner = excluded.owner AND session_turns.deleted_at IS NULL
        RETURNING turn
    ), next_turn AS (
        SELECT turn FROM known_session UNION ALL SELECT turn FROM opened_session
    ), inserted_key AS (
        INSERT INTO idempotency_keys (tenant, caller, key, body_hash, request_id, session_id)
        SELECT $1, $2, $3, $4, $5, $6 FROM next_turn WHERE $3::text IS NOT NULL
    ), inserted_request AS (
        INSERT INTO requests (tenant, request_id, session_id, turn, owner, principal, content, agent, metadata,
                              expires_at, retry_of, after_turn)
        SELECT $1, $5, $6, turn, $7, $9::jsonb, $10, $11, $12::jsonb, $13, $19, $20 FROM next_turn
    ), inserted_event AS (
        INSERT INTO outbox (id, tenant, topic, key, attributes, data)
        SELECT $14, $1, $15, $16, $17::jsonb || jsonb_build_object('turn', turn::text), $18 FROM next_turn
    )
    SELECT (SELECT turn FROM next_turn) AS turn, earlier_key.request_id, earlier_key.session_id, earlier_key.body_hash
    FROM (SELECT) AS always LEFT JOIN earlier_key ON true
"""
DELETE_EXPIRED_KEYS = sql("DELETE FROM idempotency_keys WHERE created_at < now() - CAST(:age AS interval)")


async def insert_request(database: Database, draft: RequestDraft, message: Message) -> AcceptOutcome:
    """Make a request durable: its Idempotency-Key, turn, row and outbox row in one statement and one commit."""
    try:
        return await _insert_request(database, draft, message)
    except UniqueViolation:  # a concurrent request with the same key committed first: its row is visible now
        return await _insert_request(database, draft, message)


async def _insert_request(database: Database, draft: RequestDraft, message: Message) -> AcceptOutcome:
    row = await database.fetch_row(
        ACCEPT,
        draft.principal.tenant,
        draft.caller.key,
        draft.idempotency_key,
        draft.body_hash,
        draft.request_id,
        draft.session_id,
        draft.owner.key,
        draft.opens_session,
        draft.principal.model_dump_json(),
        draft.content,
        draft.agent,
        to_json(draft.metadata).decode(),
        draft.expires_at,
        message.attributes["id"],
        message.topic,
        message.key,
        to_json(message.attributes).decode(),
        message.data,
        draft.retry_of,
        draft.after_turn,
    )
    assert row is not None
    if row["request_id"] is not None:
        if row["body_hash"] != draft.body_hash:
            return KeyReused()
        return Replayed(row["request_id"], row["session_id"])
    if row["turn"] is None:
        return UnknownSession()
    return Accepted(draft.request_id, draft.session_id, row["turn"])


async def delete_expired_keys(database: Database, age: timedelta) -> int:
    """Delete Idempotency-Keys that are older than `age`, and return their number."""
    async with database.autocommit() as tx:
        return await tx.run(DELETE_EXPIRED_KEYS, age=age)

"""The statements of reconciliation: silent requests, the balance of all requests, and pending requests by tenant.

A row of `inquiries` says how often a silent request was published again, and when the next time is due.
"""

from collections.abc import Sequence
from datetime import timedelta

from request_manager.domain import Balance, SilentRequest
from shared_clients.postgres import Database, Tx, sql

CLAIM_SILENT_REQUESTS = sql("""
    WITH silent_request AS (
        SELECT q.tenant, q.request_id, q.session_id, q.turn, q.principal, q.content, q.agent, q.metadata, q.expires_at,
               q.cancel_asked_at IS NOT NULL AS cancel_requested, q.after_turn
        FROM requests q LEFT JOIN inquiries i ON i.request_id = q.request_id
        WHERE q.completed_at IS NULL AND q.created_at < now() - CAST(:silence AS interval)
          AND (q.status = 'accepted' OR q.expires_at < now() - CAST(:silence AS interval)
               OR q.cancel_asked_at < now() - CAST(:silence AS interval))
          AND (i.next_at IS NULL OR i.next_at <= now())
          AND NOT EXISTS (SELECT FROM outbox o WHERE o.state = 'pending' AND o.created_at < now() - interval '10 s')
        ORDER BY q.created_at LIMIT :batch
        FOR UPDATE OF q SKIP LOCKED
    ), counted_inquiry AS (
        INSERT INTO inquiries AS i (request_id, asked, next_at)
        SELECT request_id, 1, now() + 2 * CAST(:silence AS interval) FROM silent_request
        ON CONFLICT (request_id) DO UPDATE SET asked = i.asked + 1,
            next_at = now() + CAST(:silence AS interval) * (0.5 + random()) * power(2, least(i.asked + 1, 5))
    )
    SELECT * FROM silent_request
""")
"""Returns nothing while an outbox row has waited for 10 s: the bus is down, and the first event is still to be sent."""
DELETE_SETTLED_INQUIRIES = sql("""
    DELETE FROM inquiries i USING requests q WHERE q.request_id = i.request_id AND q.completed_at IS NOT NULL
""")
LOAD_BALANCE = sql("""
    SELECT (SELECT coalesce(sum(turn), 0) FROM session_turns) AS accepted,
           (SELECT count(*) FROM requests) - count(*) AS terminal,
           count(*) AS pending,
           count(*) FILTER (WHERE expires_at < now() - CAST(:silence AS interval)) AS overdue
    FROM requests WHERE completed_at IS NULL
""")
"""Counts turns where they are given out and requests where they are stored, in one snapshot. Ended requests are counted
by an index alone, except on pages that were not vacuumed after their last change."""
COUNT_PENDING = sql("SELECT tenant, count(*) AS pending FROM requests WHERE completed_at IS NULL GROUP BY tenant")


async def claim_silent_requests(tx: Tx, silence: timedelta, batch: int) -> Sequence[SilentRequest]:
    """Lock and return up to `batch` silent requests, and count an inquiry for each."""
    return [SilentRequest(**row) for row in await tx.rows(CLAIM_SILENT_REQUESTS, silence=silence, batch=batch)]


async def delete_settled_inquiries(database: Database) -> int:
    """Delete the inquiries of requests that have ended, and return their number."""
    async with database.autocommit() as tx:
        return await tx.run(DELETE_SETTLED_INQUIRIES)


async def load_balance(database: Database, silence: timedelta) -> Balance:
    """Count accepted, ended, pending and overdue requests; overdue means a deadline older than `silence`."""
    async with database.autocommit() as tx:
        row = await tx.row(LOAD_BALANCE, silence=silence)
    assert row is not None
    return Balance(**{name: int(count) for name, count in row.items()})


async def count_pending_by_tenant(database: Database) -> dict[str, int]:
    """Return the number of pending requests of each tenant that has any."""
    async with database.autocommit() as tx:
        return {row["tenant"]: row["pending"] for row in await tx.rows(COUNT_PENDING)}

"""The SQL of dead letters: one form for rows of both tables, found by an id that is made from their keys.

The id is a hash, so that it is short, fit for a URL, and the same when the same event dies again. It is computed for
letters alone: partial indexes hold it, and the rows that live pay nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import TextClause

from shared_clients.postgres import sql

INBOX: Final = """
    SELECT CAST(:service AS text) || '.in.' || md5(source || md5(id)) AS letter, 'inbox' AS box, state, type, source,
           id AS event_id, tenant, attributes, coalesce(error, '') AS reason, attempts, seen_at AS first_seen, died_at,
           octet_length(data) AS size, coalesce(died_at, seen_at) AS place, data
    FROM inbox WHERE consumer = :service AND state <> 'done'
"""
OUTBOX: Final = """
    SELECT CAST(:service AS text) || '.out.' || md5(id) AS letter, 'outbox' AS box, state, attributes->>'type' AS type,
           attributes->>'source' AS source, id AS event_id, tenant, attributes, coalesce(error, '') AS reason,
           attempts, created_at AS first_seen, died_at, octet_length(data) AS size,
           coalesce(died_at, created_at) AS place, data
    FROM outbox WHERE state = 'dead'
"""
LIST = sql(f"""
    SELECT letter, box, state, type, source, event_id, tenant, attributes, reason, attempts, first_seen, died_at, size
    FROM ({INBOX} UNION ALL {OUTBOX}) AS letters
    WHERE state = :state AND tenant = ANY(:tenants)
      AND (CAST(:type AS text) IS NULL OR type = :type)
      AND (CAST(:since AS timestamptz) IS NULL OR place >= :since)
      AND (CAST(:before AS timestamptz) IS NULL OR (place, letter COLLATE "C") < (:before, :before_letter))
    ORDER BY place DESC, letter COLLATE "C" DESC LIMIT :most
""")
COUNT = sql("""
    SELECT (SELECT count(*) FROM inbox WHERE state <> 'done' AND state = 'dead')
         + (SELECT count(*) FROM outbox WHERE state = 'dead') AS dead
""")

FIND_IN = sql(f"{INBOX} AND md5(source || md5(id)) = :key AND tenant = ANY(:tenants)")
FIND_OUT = sql(f"{OUTBOX} AND md5(id) = :key AND tenant = ANY(:tenants)")
AGAIN_IN = sql("""
    UPDATE inbox SET state = 'parked', attempts = 0, next_attempt_at = now()
    WHERE consumer = :service AND source = :source AND id = :event_id AND state = 'dead'
""")
AGAIN_OUT = sql("""
    UPDATE outbox SET state = 'pending', attempts = 0, error = NULL, next_attempt_at = now()
    WHERE id = :event_id AND state = 'dead'
""")
END_IN = sql("""
    UPDATE inbox SET state = 'done', topic = NULL, key = NULL, attributes = NULL, data = NULL, error = NULL
    WHERE consumer = :service AND source = :source AND id = :event_id AND state = 'dead'
""")
"""The row stays: the event was seen, and must not be taken for a fresh one when the bus brings it again."""
END_OUT = sql("DELETE FROM outbox WHERE id = :event_id AND state = 'dead'")

SETTLE = sql("""
    INSERT INTO settled_letters AS s (letter, tenant, outcome, request_id, person, reason)
    VALUES (:letter, :tenant, :outcome, :request_id, :person, :reason)
    ON CONFLICT (letter) DO UPDATE SET outcome = excluded.outcome, request_id = excluded.request_id,
        person = excluded.person, reason = excluded.reason, settled_at = now()
""")
SETTLED = sql("""
    SELECT outcome, request_id, person, reason, settled_at FROM settled_letters
    WHERE letter = :letter AND tenant = ANY(:tenants)
""")


@dataclass(frozen=True, slots=True)
class Box:
    """The statements for letters of one table: find by id, try again, and take out of the world."""

    find: TextClause
    again: TextClause
    end: TextClause


BOXES: Final[Mapping[str, Box]] = {
    "in": Box(FIND_IN, AGAIN_IN, END_IN),
    "out": Box(FIND_OUT, AGAIN_OUT, END_OUT),
}
"""By the word that an id has for them."""

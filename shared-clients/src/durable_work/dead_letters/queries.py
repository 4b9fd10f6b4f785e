"""The SQL of dead letters: the rows of the inbox and of the outbox in one form, under one kind of id.

The id is a hash of the row's key, so it is short, fits into a URL, and stays the same when the same event dies again.
Partial indexes hold the hash for letters alone, so other rows cost nothing more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import TextClause

from shared_clients.postgres import sql

INBOX_LETTERS: Final = """
    SELECT CAST(:service AS text) || '.in.' || md5(source || md5(id)) AS letter, 'inbox' AS box, state, type, source,
           id AS event_id, tenant, attributes, coalesce(error, '') AS reason, attempts, seen_at AS first_seen, died_at,
           octet_length(data) AS size, coalesce(died_at, seen_at) AS listed_at, data
    FROM inbox WHERE consumer = :service AND state <> 'done'
"""
OUTBOX_LETTERS: Final = """
    SELECT CAST(:service AS text) || '.out.' || md5(id) AS letter, 'outbox' AS box, state, attributes->>'type' AS type,
           attributes->>'source' AS source, id AS event_id, tenant, attributes, coalesce(error, '') AS reason,
           attempts, created_at AS first_seen, died_at, octet_length(data) AS size,
           coalesce(died_at, created_at) AS listed_at, data
    FROM outbox WHERE state = 'dead'
"""
LIST_LETTERS = sql(f"""
    SELECT letter, box, state, type, source, event_id, tenant, attributes, reason, attempts, first_seen, died_at, size
    FROM ({INBOX_LETTERS} UNION ALL {OUTBOX_LETTERS}) AS letters
    WHERE state = :state AND tenant = ANY(:tenants)
      AND (CAST(:type AS text) IS NULL OR type = :type)
      AND (CAST(:since AS timestamptz) IS NULL OR listed_at >= :since)
      AND (CAST(:before AS timestamptz) IS NULL OR (listed_at, letter COLLATE "C") < (:before, :before_letter))
    ORDER BY listed_at DESC, letter COLLATE "C" DESC LIMIT :limit
""")
COUNT_DEAD = sql("""
    SELECT (SELECT count(*) FROM inbox WHERE state <> 'done' AND state = 'dead')
         + (SELECT count(*) FROM outbox WHERE state = 'dead') AS dead
""")

LOAD_INBOX_LETTER = sql(f"{INBOX_LETTERS} AND md5(source || md5(id)) = :key AND tenant = ANY(:tenants)")
LOAD_OUTBOX_LETTER = sql(f"{OUTBOX_LETTERS} AND md5(id) = :key AND tenant = ANY(:tenants)")
RETRY_INBOX_LETTER = sql("""
    UPDATE inbox SET state = 'parked', attempts = 0, next_attempt_at = now()
    WHERE consumer = :service AND source = :source AND id = :event_id AND state = 'dead'
""")
RETRY_OUTBOX_LETTER = sql("""
    UPDATE outbox SET state = 'pending', attempts = 0, error = NULL, next_attempt_at = now()
    WHERE id = :event_id AND state = 'dead'
""")
CLOSE_INBOX_LETTER = sql("""
    UPDATE inbox SET state = 'done', topic = NULL, key = NULL, attributes = NULL, data = NULL, error = NULL
    WHERE consumer = :service AND source = :source AND id = :event_id AND state = 'dead'
""")
"""The row stays as done, so that the inbox knows the event as a duplicate when the bus delivers it again."""
CLOSE_OUTBOX_LETTER = sql("DELETE FROM outbox WHERE id = :event_id AND state = 'dead'")

UPSERT_SETTLEMENT = sql("""
    INSERT INTO settled_letters AS s (letter, tenant, outcome, request_id, person, reason)
    VALUES (:letter, :tenant, :outcome, :request_id, :person, :reason)
    ON CONFLICT (letter) DO UPDATE SET outcome = excluded.outcome, request_id = excluded.request_id,
        person = excluded.person, reason = excluded.reason, settled_at = now()
""")
LOAD_SETTLEMENT = sql("""
    SELECT outcome, request_id, person, reason, settled_at FROM settled_letters
    WHERE letter = :letter AND tenant = ANY(:tenants)
""")


@dataclass(frozen=True, slots=True)
class LetterStatements:
    """The statements for the letters of one table.

    Attributes:
        load: finds a letter by its key.
        retry: has the service try a dead letter's event again.
        close: takes a dead letter off the list and deletes its bytes.
    """

    load: TextClause
    retry: TextClause
    close: TextClause


STATEMENTS: Final[Mapping[str, LetterStatements]] = {
    "in": LetterStatements(LOAD_INBOX_LETTER, RETRY_INBOX_LETTER, CLOSE_INBOX_LETTER),
    "out": LetterStatements(LOAD_OUTBOX_LETTER, RETRY_OUTBOX_LETTER, CLOSE_OUTBOX_LETTER),
}
"""The statements by `LetterId.table`."""

"""The SQL of the inbox: a row is done, parked or dead, and its key names the event for one consumer."""

from shared_clients.postgres import sql

INSERT_DONE = sql("""
    INSERT INTO inbox (consumer, source, id, tenant, type, state)
    VALUES (:consumer, :source, :id, :tenant, :type, 'done')
    ON CONFLICT DO NOTHING
""")
INSERT_UNHANDLED = sql("""
    INSERT INTO inbox (consumer, source, id, tenant, type, state, topic, key, attributes, data, origin, error,
                       next_attempt_at, died_at)
    VALUES (:consumer, :source, :id, :tenant, :type, :state, :topic, :key, CAST(:attributes AS jsonb), :data, :origin,
            :error, now() + :pause, CASE WHEN CAST(:state AS text) = 'dead' THEN now() END)
    ON CONFLICT DO NOTHING
""")
CLAIM_PARKED = sql("""
    UPDATE inbox SET attempts = attempts + 1, next_attempt_at = now() + interval '30 seconds'
    WHERE (consumer, source, id) IN (
        SELECT consumer, source, id FROM inbox
        WHERE consumer = :consumer AND state = 'parked' AND next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    RETURNING source, id, topic, key, attributes, data, origin, attempts, now() - seen_at AS age
""")
MARK_PARKED_DONE = sql("""
    UPDATE inbox SET state = 'done', topic = NULL, key = NULL, attributes = NULL, data = NULL, error = NULL,
                     next_attempt_at = NULL
    WHERE consumer = :consumer AND source = :source AND id = :id AND state = 'parked'
""")
POSTPONE_RETRY = sql("""
    UPDATE inbox SET next_attempt_at = now() + :pause, error = :error
    WHERE consumer = :consumer AND source = :source AND id = :id AND state = 'parked'
""")
MARK_PARKED_DEAD = sql("""
    UPDATE inbox SET state = 'dead', error = :error, next_attempt_at = NULL, died_at = now(),
                     tenant = CASE WHEN CAST(:untrusted AS boolean) THEN '' ELSE tenant END
    WHERE consumer = :consumer AND source = :source AND id = :id AND state = 'parked'
""")
DELETE_EXPIRED_EVENTS = sql("""
    DELETE FROM inbox WHERE (consumer, source, id) IN (
        SELECT consumer, source, id FROM inbox
        WHERE consumer = :consumer AND state = 'done' AND seen_at < now() - interval '8 days' LIMIT 10000
    )
""")
"""Topics keep an event for seven days, so an event whose row is deleted cannot come again."""

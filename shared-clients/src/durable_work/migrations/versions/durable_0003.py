"""Dead letters: the time of each death, indexes for their ids, and the outcomes of settled letters.

`died_at` stays empty in rows that the previous release marks dead; the time of arrival stands in for it.
"""

from alembic import op

revision = "durable_0003"
down_revision = "durable_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE inbox ADD COLUMN died_at timestamptz")
    op.execute("ALTER TABLE outbox ADD COLUMN died_at timestamptz")
    op.execute("UPDATE inbox SET tenant = '' WHERE state = 'dead' AND tenant = 'unknown'")
    op.execute("DROP INDEX inbox_dead")
    op.execute("CREATE INDEX inbox_kept ON inbox ((coalesce(died_at, seen_at))) WHERE state <> 'done'")
    op.execute("CREATE INDEX inbox_letter ON inbox ((md5(source || md5(id)))) WHERE state <> 'done'")
    op.execute("CREATE INDEX outbox_dead ON outbox ((coalesce(died_at, created_at))) WHERE state = 'dead'")
    op.execute("""
        CREATE TABLE settled_letters (
            letter     text PRIMARY KEY,
            tenant     text NOT NULL,
            outcome    text NOT NULL CHECK (outcome IN ('replayed', 'discarded')),
            request_id uuid,
            person     text NOT NULL,
            reason     text,
            settled_at timestamptz NOT NULL DEFAULT now(),
            CHECK (outcome = 'replayed' OR reason IS NOT NULL)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE settled_letters")
    op.execute("DROP INDEX outbox_dead, inbox_letter, inbox_kept")
    op.execute("CREATE INDEX inbox_dead ON inbox (seen_at) WHERE state = 'dead'")
    op.execute("ALTER TABLE outbox DROP COLUMN died_at")
    op.execute("ALTER TABLE inbox DROP COLUMN died_at")

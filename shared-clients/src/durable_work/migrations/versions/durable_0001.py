"""The tables of durable work: the same in every service's schema."""

from alembic import op

revision = "durable_0001"
down_revision = None
branch_labels = ("durable",)
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE outbox (
            id              text PRIMARY KEY,
            tenant          text NOT NULL,
            topic           text NOT NULL,
            key             text NOT NULL,
            attributes      jsonb NOT NULL,
            data            bytea NOT NULL,
            state           text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'dead')),
            attempts        integer NOT NULL DEFAULT 0,
            error           text,
            created_at      timestamptz NOT NULL DEFAULT now(),
            next_attempt_at timestamptz NOT NULL DEFAULT now() + interval '2 seconds'
        )
    """)
    op.execute("CREATE INDEX outbox_due ON outbox (next_attempt_at) WHERE state = 'pending'")
    op.execute("""
        CREATE TABLE inbox (
            consumer        text NOT NULL,
            source          text NOT NULL,
            id              text NOT NULL,
            tenant          text NOT NULL,
            type            text NOT NULL,
            state           text NOT NULL CHECK (state IN ('done', 'parked', 'dead')),
            topic           text,
            key             text,
            attributes      jsonb,
            data            bytea,
            origin          text,
            attempts        integer NOT NULL DEFAULT 1,
            error           text,
            seen_at         timestamptz NOT NULL DEFAULT now(),
            next_attempt_at timestamptz,
            PRIMARY KEY (consumer, source, id),
            CHECK (state = 'done' OR data IS NOT NULL)
        )
    """)
    op.execute("CREATE INDEX inbox_due ON inbox (next_attempt_at) WHERE state = 'parked'")
    op.execute("CREATE INDEX inbox_dead ON inbox (seen_at) WHERE state = 'dead'")
    op.execute("CREATE INDEX inbox_done ON inbox (consumer, seen_at) WHERE state = 'done'")
    op.execute("""
        CREATE TABLE worker_leases (
            worker     uuid PRIMARY KEY,
            expires_at timestamptz NOT NULL,
            started_at timestamptz NOT NULL DEFAULT now()
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE worker_leases, inbox, outbox")

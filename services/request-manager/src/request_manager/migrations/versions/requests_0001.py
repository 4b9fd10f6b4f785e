"""Requests, their sessions' turns, and idempotency keys."""

from alembic import op

revision = "requests_0001"
down_revision = None
branch_labels = ("request_manager",)
depends_on = "durable_0001"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE session_turns (
            tenant     text NOT NULL,
            session_id uuid NOT NULL,
            owner      text NOT NULL,
            turn       bigint NOT NULL,
            PRIMARY KEY (tenant, session_id)
        ) WITH (fillfactor = 70)
    """)
    op.execute("""
        CREATE TABLE requests (
            request_id   uuid PRIMARY KEY,
            tenant       text NOT NULL,
            session_id   uuid NOT NULL,
            turn         bigint NOT NULL,
            owner        text NOT NULL,
            principal    jsonb NOT NULL,
            content      text NOT NULL,
            metadata     jsonb NOT NULL,
            status       text NOT NULL DEFAULT 'accepted',
            status_epoch bigint NOT NULL DEFAULT 0,
            agent        text,
            revision     text,
            response     jsonb,
            error        jsonb,
            usage        jsonb,
            created_at   timestamptz NOT NULL DEFAULT now(),
            expires_at   timestamptz NOT NULL,
            cancel_asked_at timestamptz,
            completed_at timestamptz,
            UNIQUE (tenant, session_id, turn)
        ) WITH (fillfactor = 80)
    """)
    op.execute("CREATE INDEX requests_of_owner ON requests (tenant, owner, request_id DESC)")
    op.execute("CREATE INDEX requests_pending ON requests (created_at) WHERE completed_at IS NULL")
    op.execute("""
        CREATE TABLE idempotency_keys (
            tenant     text NOT NULL,
            caller     text NOT NULL,
            key        text NOT NULL,
            body_hash  bytea NOT NULL,
            request_id uuid NOT NULL,
            session_id uuid NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant, caller, key)
        )
    """)
    op.execute("CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at)")


def downgrade() -> None:
    op.execute("DROP TABLE idempotency_keys, requests, session_turns")

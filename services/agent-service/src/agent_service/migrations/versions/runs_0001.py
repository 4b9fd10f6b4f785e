"""Sessions, runs, their steps, messages, and cancellations that came before their request."""

from alembic import op

revision = "runs_0001"
down_revision = None
branch_labels = ("agent_service",)
depends_on = "durable_0001"


STATEMENTS = (
    """
    CREATE TABLE sessions (
        tenant     text NOT NULL,
        session_id uuid NOT NULL,
        owner      text NOT NULL,
        agent      text,
        title      text NOT NULL DEFAULT '',
        arrived    bigint NOT NULL DEFAULT 0,
        last_turn  bigint NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        deleted_at timestamptz,
        PRIMARY KEY (tenant, session_id)
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE INDEX sessions_of_owner ON sessions (tenant, owner, updated_at DESC, session_id DESC)
    WHERE deleted_at IS NULL
    """,
    """
    CREATE TABLE runs (
        tenant       text NOT NULL,
        execution_id uuid NOT NULL,
        session_id   uuid NOT NULL,
        turn         bigint NOT NULL,
        status       text NOT NULL,
        epoch        bigint NOT NULL DEFAULT 0,
        tries        integer NOT NULL DEFAULT 0,
        worker       uuid,
        agent        text,
        revision     text,
        content      text NOT NULL,
        principal    jsonb NOT NULL,
        traceparent  text,
        cause        text NOT NULL,
        expires_at   timestamptz NOT NULL,
        created_at   timestamptz NOT NULL DEFAULT now(),
        started_at   timestamptz,
        finished_at  timestamptz,
        answer       text,
        failure      jsonb,
        terminal_frame jsonb,
        PRIMARY KEY (tenant, execution_id),
        UNIQUE (tenant, session_id, turn)
    ) WITH (fillfactor = 70)
    """,
    "CREATE UNIQUE INDEX runs_active ON runs (tenant, session_id) WHERE status = 'running'",
    "CREATE INDEX runs_ready ON runs (created_at) WHERE status IN ('queued', 'running')",
    "CREATE INDEX runs_of_worker ON runs (worker) WHERE status = 'running'",
    "CREATE INDEX runs_untold ON runs (finished_at) WHERE terminal_frame IS NOT NULL",
    """
    CREATE TABLE steps (
        tenant       text NOT NULL,
        execution_id uuid NOT NULL,
        key          text NOT NULL,
        epoch        bigint NOT NULL,
        result       jsonb NOT NULL,
        keep         text NOT NULL,
        created_at   timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant, execution_id, key)
    )
    """,
    """
    CREATE TABLE messages (
        tenant       text NOT NULL,
        session_id   uuid NOT NULL,
        turn         bigint NOT NULL,
        ordinal      integer NOT NULL,
        execution_id uuid NOT NULL,
        message      jsonb NOT NULL,
        created_at   timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant, session_id, turn, ordinal)
    )
    """,
    """
    CREATE TABLE cancellations (
        tenant       text NOT NULL,
        execution_id uuid NOT NULL,
        asked_at     timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant, execution_id)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE cancellations, messages, steps, runs, sessions")

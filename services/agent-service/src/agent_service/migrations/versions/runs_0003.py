"""Runs become jobs: a run that may start is marked as ready, and a session knows its current run and its next turn.

A claim then reads an index of ready runs alone, instead of asking of every queued run whether its turn has come.
"""

from alembic import op

revision = "runs_0003"
down_revision = "runs_0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE runs ADD COLUMN ready_at timestamptz, ADD COLUMN due_at timestamptz",
    "ALTER TABLE sessions ADD COLUMN next_turn bigint NOT NULL DEFAULT 1, ADD COLUMN current_run uuid",
    """
    UPDATE sessions s SET next_turn = (
        SELECT min(t.turn) FROM (
            SELECT 1 AS turn
            UNION ALL
            SELECT r.turn + 1 FROM runs r
            WHERE r.tenant = s.tenant AND r.session_id = s.session_id AND r.status NOT IN ('queued', 'running')
        ) t
        WHERE NOT EXISTS (SELECT FROM runs e WHERE e.tenant = s.tenant AND e.session_id = s.session_id
                          AND e.turn = t.turn AND e.status NOT IN ('queued', 'running'))
    )
    """,
    """
    UPDATE sessions s SET current_run = r.execution_id FROM runs r
    WHERE r.tenant = s.tenant AND r.session_id = s.session_id AND r.turn = s.next_turn
      AND r.status IN ('queued', 'running')
    """,
    """
    UPDATE runs r SET ready_at = now() FROM sessions s
    WHERE s.tenant = r.tenant AND s.session_id = r.session_id AND s.current_run = r.execution_id
      AND r.status = 'queued'
    """,
    "DROP INDEX runs_ready",
    "DROP INDEX runs_of_worker",
    "CREATE INDEX runs_ready ON runs (tenant, ready_at) WHERE ready_at IS NOT NULL",
    "CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX runs_held ON runs (worker) WHERE worker IS NOT NULL",
    "CREATE INDEX runs_queued ON runs (expires_at) WHERE status = 'queued'",
    "ALTER TABLE sessions DROP COLUMN arrived, DROP COLUMN last_turn",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE sessions ADD COLUMN arrived bigint NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE sessions ADD COLUMN last_turn bigint NOT NULL DEFAULT 0")
    op.execute("""
        UPDATE sessions s SET arrived = r.arrived, last_turn = r.last_turn
        FROM (SELECT tenant, session_id, count(*) AS arrived, max(turn) AS last_turn FROM runs GROUP BY 1, 2) r
        WHERE r.tenant = s.tenant AND r.session_id = s.session_id
    """)
    op.execute("DROP INDEX runs_ready, runs_due, runs_held, runs_queued")
    op.execute("CREATE INDEX runs_ready ON runs (created_at) WHERE status IN ('queued', 'running')")
    op.execute("CREATE INDEX runs_of_worker ON runs (worker) WHERE status = 'running'")
    op.execute("ALTER TABLE sessions DROP COLUMN next_turn, DROP COLUMN current_run")
    op.execute("ALTER TABLE runs DROP COLUMN ready_at, DROP COLUMN due_at")

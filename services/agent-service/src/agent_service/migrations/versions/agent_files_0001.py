"""The contents that each version of an agent has had, to find a file that was edited in place."""

from alembic import op

revision = "agent_files_0001"
down_revision = "runs_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE agent_files (
            agent      text NOT NULL,
            version    integer NOT NULL,
            digest     text NOT NULL,
            revision   text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (agent, version, digest, revision)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE agent_files")

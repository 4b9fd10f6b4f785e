"""A run may follow another turn than the one before it: a question that is asked again or edited makes a branch."""

from alembic import op

revision = "runs_0005"
down_revision = "agent_files_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE runs ADD COLUMN after_turn bigint")
    op.execute("CREATE INDEX runs_forks ON runs (tenant, session_id, turn) WHERE after_turn IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX runs_forks")
    op.execute("ALTER TABLE runs DROP COLUMN after_turn")

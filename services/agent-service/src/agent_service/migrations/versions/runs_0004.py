"""A run keeps the reason why its answer ends before the model was done."""

from alembic import op

revision = "runs_0004"
down_revision = "runs_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE runs ADD COLUMN truncated text")


def downgrade() -> None:
    op.execute("ALTER TABLE runs DROP COLUMN truncated")

"""The usage of a run is stored with its end, so that the whole end can be published again."""

from alembic import op

revision = "runs_0002"
down_revision = "runs_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE runs ADD COLUMN usage jsonb")


def downgrade() -> None:
    op.execute("ALTER TABLE runs DROP COLUMN usage")

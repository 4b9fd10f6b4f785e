"""A request may follow another turn than the one before it: a question that is asked again or edited makes a branch."""

from alembic import op

revision = "requests_0004"
down_revision = "requests_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE requests ADD COLUMN after_turn bigint")


def downgrade() -> None:
    op.execute("ALTER TABLE requests DROP COLUMN after_turn")

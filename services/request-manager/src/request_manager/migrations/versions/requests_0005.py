"""When a session was deleted: from then on, nobody reads its requests, and none is accepted in it."""

from alembic import op

revision = "requests_0005"
down_revision = "requests_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE session_turns ADD COLUMN deleted_at timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE session_turns DROP COLUMN deleted_at")

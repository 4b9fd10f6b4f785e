"""The inquiries about silent requests, in a table of their own, so that accepting a request costs nothing more."""

from alembic import op

revision = "requests_0002"
down_revision = "requests_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE inquiries (
            request_id uuid PRIMARY KEY REFERENCES requests ON DELETE CASCADE,
            asked      integer NOT NULL,
            next_at    timestamptz NOT NULL
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE inquiries")

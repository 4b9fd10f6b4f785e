"""Signed-in browsers, and the single-use codes that sign them in."""

from alembic import op

revision = "gateway_0001"
down_revision = None
branch_labels = ("api_gateway",)
depends_on = "durable_0001"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE sign_in_codes (
            code_hash  bytea PRIMARY KEY,
            tenant     text NOT NULL,
            principal  jsonb NOT NULL,
            expires_at timestamptz NOT NULL
        )
    """)
    op.execute("""
        CREATE TABLE browser_sessions (
            token_hash bytea PRIMARY KEY,
            tenant     text NOT NULL,
            principal  jsonb NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz NOT NULL
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE browser_sessions, sign_in_codes")

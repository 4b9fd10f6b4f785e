"""A retry names its failed request; there is at most one, however often the dead letter is replayed."""

from alembic import op

revision = "requests_0003"
down_revision = "requests_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE requests ADD COLUMN retry_of uuid")
    op.execute("CREATE UNIQUE INDEX requests_retry_of ON requests (tenant, retry_of) WHERE retry_of IS NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE requests DROP COLUMN retry_of")

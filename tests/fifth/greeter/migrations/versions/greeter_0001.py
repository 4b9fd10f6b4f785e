"""The greeter's one table."""

from alembic import op

from tests.fifth.greeter.queries import GREETINGS

revision, down_revision, branch_labels, depends_on = "greeter_0001", None, ("greeter",), None


def upgrade() -> None:
    op.execute(f"""CREATE TABLE greetings (tenant text, greeting_id uuid, name text NOT NULL, outcome text,
                                           {GREETINGS.columns()}, PRIMARY KEY (tenant, greeting_id))""")
    for index in GREETINGS.indexes():
        op.execute(index)

"""The audit log of each service: append-only entries and seals, and the entries that wait for the sealer."""

from alembic import op

revision = "durable_0002"
down_revision = "durable_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE audit_entries (
            id         uuid PRIMARY KEY,
            tenant     text NOT NULL,
            at         timestamptz NOT NULL DEFAULT clock_timestamp(),
            credential text NOT NULL,
            person     text NOT NULL,
            action     text NOT NULL,
            subject    text NOT NULL,
            outcome    text NOT NULL,
            details    jsonb NOT NULL CHECK (jsonb_typeof(details) = 'object' AND octet_length(details::text) < 65536),
            trace_id   text NOT NULL
        )
    """)
    op.execute("""
        CREATE TABLE audit_seals (
            number   bigint PRIMARY KEY CHECK (number > 0),
            entry_id uuid NOT NULL UNIQUE REFERENCES audit_entries (id),
            hash     bytea NOT NULL CHECK (octet_length(hash) = 32)
        )
    """)
    op.execute("CREATE TABLE audit_waiting (id uuid PRIMARY KEY REFERENCES audit_entries (id))")
    op.execute("""
        CREATE TABLE audit_sealer (
            single     boolean PRIMARY KEY DEFAULT true CHECK (single),
            holder     uuid,
            expires_at timestamptz NOT NULL DEFAULT '-infinity'
        )
    """)
    op.execute("INSERT INTO audit_sealer DEFAULT VALUES")
    op.execute("""
        CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
                USING ERRCODE = 'restrict_violation';
        END $$
    """)
    for table in ("audit_entries", "audit_seals"):
        op.execute(f"""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()
        """)
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only")


def downgrade() -> None:
    op.execute("DROP TABLE audit_sealer, audit_waiting, audit_seals, audit_entries")
    op.execute("DROP FUNCTION audit_is_append_only")

"""All SQL of the gateway: signed-in browsers and the codes that sign them in, both known by their hash only."""

from datetime import timedelta

from shared_clients.postgres import Database, Tx, sql
from shared_models.requests import Principal

INSERT_CODE = sql("""
    INSERT INTO sign_in_codes (code_hash, tenant, principal, expires_at)
    VALUES (:code_hash, :tenant, CAST(:principal AS jsonb), now() + :lifetime)
""")
USE_CODE = sql("DELETE FROM sign_in_codes WHERE code_hash = :code_hash AND expires_at > now() RETURNING principal")
INSERT_BROWSER = sql("""
    INSERT INTO browser_sessions (token_hash, tenant, principal, expires_at)
    VALUES (:token_hash, :tenant, CAST(:principal AS jsonb), now() + :lifetime)
""")
FIND_BROWSER = sql("SELECT principal FROM browser_sessions WHERE token_hash = :token_hash AND expires_at > now()")
DELETE_BROWSER = sql("DELETE FROM browser_sessions WHERE token_hash = :token_hash RETURNING principal")
FORGET_CODES = sql("DELETE FROM sign_in_codes WHERE expires_at < now()")
FORGET_BROWSERS = sql("DELETE FROM browser_sessions WHERE expires_at < now()")


async def insert_code(tx: Tx, code_hash: bytes, principal: Principal, lifetime: timedelta) -> None:
    await tx.run(
        INSERT_CODE,
        code_hash=code_hash,
        tenant=principal.tenant,
        principal=principal.model_dump_json(),
        lifetime=lifetime,
    )


async def use_code(tx: Tx, code_hash: bytes) -> Principal | None:
    """Take a code out of the world, and return whom it signs in; None where it never was, is used, or is too old."""
    row = await tx.row(USE_CODE, code_hash=code_hash)
    return None if row is None else Principal.model_validate(row["principal"])


async def insert_browser(tx: Tx, token_hash: bytes, principal: Principal, lifetime: timedelta) -> None:
    await tx.run(
        INSERT_BROWSER,
        token_hash=token_hash,
        tenant=principal.tenant,
        principal=principal.model_dump_json(),
        lifetime=lifetime,
    )


async def find_browser(database: Database, token_hash: bytes) -> Principal | None:
    async with database.autocommit() as tx:
        row = await tx.row(FIND_BROWSER, token_hash=token_hash)
    return None if row is None else Principal.model_validate(row["principal"])


async def delete_browser(tx: Tx, token_hash: bytes) -> Principal | None:
    """Take a browser's cookie out of the world, and return whose it was; None where there is none such."""
    row = await tx.row(DELETE_BROWSER, token_hash=token_hash)
    return None if row is None else Principal.model_validate(row["principal"])


async def forget_expired(database: Database) -> None:
    async with database.autocommit() as tx:
        await tx.run(FORGET_CODES)
        await tx.run(FORGET_BROWSERS)

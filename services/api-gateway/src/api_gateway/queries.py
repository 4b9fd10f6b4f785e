"""All SQL of the gateway: the sessions of signed-in browsers, and the codes that sign browsers in, both by hash."""

from datetime import timedelta

from shared_clients.postgres import Database, Tx, sql
from shared_models.requests import Principal

INSERT_CODE = sql("""
    INSERT INTO sign_in_codes (code_hash, tenant, principal, expires_at)
    VALUES (:code_hash, :tenant, CAST(:principal AS jsonb), now() + :lifetime)
""")
LOCK_CODE = sql("SELECT principal FROM sign_in_codes WHERE code_hash = :code_hash AND expires_at > now() FOR UPDATE")
DELETE_CODE = sql("DELETE FROM sign_in_codes WHERE code_hash = :code_hash")
INSERT_SESSION = sql("""
    INSERT INTO browser_sessions (token_hash, tenant, principal, expires_at)
    VALUES (:token_hash, :tenant, CAST(:principal AS jsonb), now() + :lifetime)
""")
LOAD_SESSION = sql("SELECT principal FROM browser_sessions WHERE token_hash = :token_hash AND expires_at > now()")
DELETE_SESSION = sql("DELETE FROM browser_sessions WHERE token_hash = :token_hash RETURNING principal")
DELETE_EXPIRED_CODES = sql("DELETE FROM sign_in_codes WHERE expires_at < now()")
DELETE_EXPIRED_SESSIONS = sql("DELETE FROM browser_sessions WHERE expires_at < now()")


async def insert_code(tx: Tx, code_hash: bytes, principal: Principal, lifetime: timedelta) -> None:
    await tx.run(
        INSERT_CODE,
        code_hash=code_hash,
        tenant=principal.tenant,
        principal=principal.model_dump_json(),
        lifetime=lifetime,
    )


async def lock_code(tx: Tx, code_hash: bytes) -> Principal | None:
    """Return the person whom a code signs in, and let no other transaction use it; None without a valid code."""
    row = await tx.row(LOCK_CODE, code_hash=code_hash)
    return None if row is None else Principal.model_validate(row["principal"])


async def delete_code(tx: Tx, code_hash: bytes) -> None:
    await tx.run(DELETE_CODE, code_hash=code_hash)


async def insert_session(tx: Tx, token_hash: bytes, principal: Principal, lifetime: timedelta) -> None:
    await tx.run(
        INSERT_SESSION,
        token_hash=token_hash,
        tenant=principal.tenant,
        principal=principal.model_dump_json(),
        lifetime=lifetime,
    )


async def load_session(database: Database, token_hash: bytes) -> Principal | None:
    """Return the person of a session; None where it is unknown or expired."""
    async with database.autocommit() as tx:
        return await find_session(tx, token_hash)


async def find_session(tx: Tx, token_hash: bytes) -> Principal | None:
    """Return the person of a session; None where it is unknown or expired."""
    row = await tx.row(LOAD_SESSION, token_hash=token_hash)
    return None if row is None else Principal.model_validate(row["principal"])


async def delete_session(tx: Tx, token_hash: bytes) -> Principal | None:
    """Delete a session and return its person; None where it is unknown."""
    row = await tx.row(DELETE_SESSION, token_hash=token_hash)
    return None if row is None else Principal.model_validate(row["principal"])


async def delete_expired_sign_ins(database: Database) -> None:
    """Delete expired codes and expired sessions."""
    async with database.autocommit() as tx:
        await tx.run(DELETE_EXPIRED_CODES)
        await tx.run(DELETE_EXPIRED_SESSIONS)

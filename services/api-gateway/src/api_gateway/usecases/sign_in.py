"""Signs a browser in and out: a single-use code becomes an opaque cookie, so the page never sees a key.

Only hashes of codes and tokens are stored. Both are 256 random bits, so a plain SHA-256 is enough.
"""

import hashlib
import secrets
from datetime import timedelta
from typing import Final

from api_gateway import queries
from durable_work.audit import Actor, Entry, record
from shared_clients.postgres import Database
from shared_models.audit import Action
from shared_models.requests import Principal

CODE_LIFETIME: Final = timedelta(minutes=15)
SESSION_LIFETIME: Final = timedelta(days=30)


def hash_secret(secret: str) -> bytes:
    """Return the hash under which a code or a token is stored."""
    return hashlib.sha256(secret.encode()).digest()


async def make_code(database: Database, principal: Principal) -> str:
    """Return a code that signs one browser in as `principal`, once, within `CODE_LIFETIME`."""
    code = secrets.token_urlsafe(32)
    async with database.transaction() as tx:
        await queries.insert_code(tx, hash_secret(code), principal, CODE_LIFETIME)
        await record(tx, Entry(principal.tenant, Actor.of(principal), Action.LINK_MADE, _pseudonym(code)))
    return code


async def sign_in(database: Database, code: str) -> str | None:
    """Use up a code, and return the token of a new browser session; None where the code is unknown, used or expired."""
    token = secrets.token_urlsafe(32)
    async with database.transaction() as tx:
        principal = await queries.use_code(tx, hash_secret(code))
        if principal is None:
            return None
        browser = principal.model_copy(
            update={"credential": f"browser-{hash_secret(token).hex()[:16]}", "channel": "web"}
        )
        await queries.insert_session(tx, hash_secret(token), browser, SESSION_LIFETIME)
        await record(tx, Entry(browser.tenant, Actor.of(browser), Action.SIGNED_IN, _pseudonym(code)))
    return token


async def sign_out(database: Database, token: str) -> None:
    """End a browser's session; an unknown or expired one changes nothing."""
    async with database.transaction() as tx:
        browser = await queries.delete_session(tx, hash_secret(token))
        if browser is not None:
            await record(tx, Entry(browser.tenant, Actor.of(browser), Action.SIGNED_OUT, browser.credential))


def _pseudonym(code: str) -> str:
    """Return a name for a code that is safe in the audit log, where it connects the code's creation and use."""
    return f"link-{hash_secret(code).hex()[:16]}"

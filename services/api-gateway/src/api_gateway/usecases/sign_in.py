"""Sign a browser in and out: a single-use code becomes an opaque cookie; the page never sees a key.

Only hashes are stored. Codes and tokens are 256 random bits, so a plain SHA-256 is enough.
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

CODE_LIVES: Final = timedelta(minutes=15)
COOKIE_LIVES: Final = timedelta(days=30)


def hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def make_code(database: Database, principal: Principal) -> str:
    """Return a code that signs one browser in as `principal`, once, within `CODE_LIVES`."""
    code = secrets.token_urlsafe(32)
    async with database.transaction() as tx:
        await queries.insert_code(tx, hashed(code), principal, CODE_LIVES)
        await record(tx, Entry(principal.tenant, Actor.of(principal), Action.LINK_MADE, _link(code)))
    return code


async def sign_in(database: Database, code: str) -> str | None:
    """Use a code up, and return the token for the browser's cookie; None where the code is not good."""
    token = secrets.token_urlsafe(32)
    async with database.transaction() as tx:
        principal = await queries.use_code(tx, hashed(code))
        if principal is None:
            return None
        browser = principal.model_copy(update={"credential": f"browser-{hashed(token).hex()[:16]}", "channel": "web"})
        await queries.insert_browser(tx, hashed(token), browser, COOKIE_LIVES)
        await record(tx, Entry(browser.tenant, Actor.of(browser), Action.SIGNED_IN, _link(code)))
    return token


async def sign_out(database: Database, token: str) -> None:
    """Take a browser's cookie back; one that is no good any more changes nothing."""
    async with database.transaction() as tx:
        browser = await queries.delete_browser(tx, hashed(token))
        if browser is not None:
            await record(tx, Entry(browser.tenant, Actor.of(browser), Action.SIGNED_OUT, browser.credential))


def _link(code: str) -> str:
    """Return the pseudonym of a code, by which the log ties its making to its use."""
    return f"link-{hashed(code).hex()[:16]}"

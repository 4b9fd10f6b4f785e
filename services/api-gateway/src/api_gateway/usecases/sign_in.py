"""Sign a browser in: a single-use code becomes an opaque cookie; the page never sees a key.

Only hashes are stored. Codes and tokens are 256 random bits, so a plain SHA-256 is enough.
"""

import hashlib
import secrets
from datetime import timedelta
from typing import Final

from api_gateway import queries
from shared_clients.postgres import Database
from shared_models.requests import Principal

CODE_LIVES: Final = timedelta(minutes=15)
COOKIE_LIVES: Final = timedelta(days=30)


def hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def make_code(database: Database, principal: Principal) -> str:
    """Return a code that signs one browser in as `principal`, once, within `CODE_LIVES`."""
    code = secrets.token_urlsafe(32)
    await queries.insert_code(database, hashed(code), principal, CODE_LIVES)
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
    return token

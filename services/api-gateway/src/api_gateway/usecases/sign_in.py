"""Signs a browser in and out: a single-use code becomes an opaque cookie, so the page never sees a key.

A link that somebody else sent could sign a person in to another account without notice, and what they write would be
read there. So a browser that is signed in changes to another person only after a confirmation.

Only hashes of codes and tokens are stored. Both are 256 random bits, so a plain SHA-256 is enough.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from api_gateway import queries
from durable_work.audit import Actor, Entry, record
from shared_clients.postgres import Database, Tx
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


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The code is used up, and the browser has a new session with this token."""

    token: str


@dataclass(frozen=True, slots=True)
class OtherPerson:
    """The code signs in another person than the browser's session; nothing is changed."""

    signed_in: Principal
    by_link: Principal


@dataclass(frozen=True, slots=True)
class InvalidCode:
    """The code is unknown, used or expired."""


type SignInOutcome = SignedIn | OtherPerson | InvalidCode


async def sign_in(database: Database, code: str, *, earlier: str = "", replace: bool = False) -> SignInOutcome:
    """Use up a code for a new browser session, which takes the place of the browser's earlier one.

    Args:
        database: the gateway's schema.
        code: as the link has it.
        earlier: the token of the browser's session; empty where it has none.
        replace: whether another person than that of the earlier session may be signed in.
    """
    token = secrets.token_urlsafe(32)
    async with database.transaction() as tx:
        principal = await queries.lock_code(tx, hash_secret(code))
        if principal is None:
            return InvalidCode()
        before = await queries.find_session(tx, hash_secret(earlier)) if earlier else None
        if before is not None and not replace and _person(before) != _person(principal):
            return OtherPerson(before, principal)
        await queries.delete_code(tx, hash_secret(code))
        if before is not None:
            await _end_session(tx, earlier)
        browser = principal.model_copy(
            update={"credential": f"browser-{hash_secret(token).hex()[:16]}", "channel": "web"}
        )
        await queries.insert_session(tx, hash_secret(token), browser, SESSION_LIFETIME)
        await record(tx, Entry(browser.tenant, Actor.of(browser), Action.SIGNED_IN, _pseudonym(code)))
    return SignedIn(token)


async def sign_out(database: Database, token: str) -> None:
    """End a browser's session; an unknown or expired one changes nothing."""
    async with database.transaction() as tx:
        await _end_session(tx, token)


async def _end_session(tx: Tx, token: str) -> None:
    browser = await queries.delete_session(tx, hash_secret(token))
    if browser is not None:
        await record(tx, Entry(browser.tenant, Actor.of(browser), Action.SIGNED_OUT, browser.credential))


def _person(principal: Principal) -> tuple[str, str, str]:
    return principal.issuer, principal.subject, principal.tenant


def _pseudonym(code: str) -> str:
    """Return a name for a code that is safe in the audit log, where it connects the code's creation and use."""
    return f"link-{hash_secret(code).hex()[:16]}"

"""Browsers that are signed in: an opaque cookie, known here by its hash, that can be taken back at any moment."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from starlette.requests import Request, cookie_parser
from starlette.responses import Response

from api_gateway import queries
from api_gateway.usecases.sign_in import COOKIE_LIVES, hashed, sign_out
from shared_clients.identity import Credentials
from shared_clients.postgres import Database
from shared_models.requests import Principal

REMEMBERED_SECONDS: Final = 15.0
"""How long a cookie is believed without asking again; within a minute a revoked one is worth nothing."""
REMEMBERED: Final = 4096


class Browsers:
    """Credentials of signed-in browsers.

    Args:
        database: the gateway's schema.
        secure: whether pages are served over TLS; on a laptop they are not, and the cookie goes without its prefix.
        clock: seconds that only go forward.
    """

    def __init__(self, database: Database, *, secure: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._secure = secure
        self.cookie = "__Host-flotilla" if secure else "flotilla"
        self._clock = clock
        self._seen: dict[bytes, tuple[float, Principal]] = {}

    async def authenticate(self, headers: Mapping[str, str]) -> Principal | None:
        token = cookie_parser(headers.get("cookie", "")).get(self.cookie)
        if not token:
            return None
        token_hash, now = hashed(token), self._clock()
        known = self._seen.get(token_hash)
        if known is not None and known[0] > now:
            return known[1]
        principal = await queries.find_browser(self._database, token_hash)
        self._seen.pop(token_hash, None)
        if principal is not None:
            while len(self._seen) >= REMEMBERED:
                self._seen.pop(next(iter(self._seen)))
            self._seen[token_hash] = (now + REMEMBERED_SECONDS, principal)
        return principal

    def set_cookie(self, response: Response, token: str) -> None:
        age = int(COOKIE_LIVES.total_seconds())
        response.set_cookie(
            self.cookie, token, max_age=age, path="/", secure=self._secure, httponly=True, samesite="strict"
        )

    async def end(self, request: Request, response: Response) -> None:
        """Forget the request's cookie, here at once and on other replicas within `REMEMBERED_SECONDS`."""
        token = request.cookies.get(self.cookie)
        if token:
            await sign_out(self._database, token)
            self._seen.pop(hashed(token), None)
        response.delete_cookie(self.cookie, path="/", secure=self._secure, httponly=True, samesite="strict")


class AnyOf:
    """The first of several credentials that knows the caller; nobody does by default."""

    def __init__(self, *credentials: Credentials) -> None:
        self._credentials = credentials

    async def authenticate(self, headers: Mapping[str, str]) -> Principal | None:
        for credentials in self._credentials:
            if (principal := await credentials.authenticate(headers)) is not None:
                return principal
        return None

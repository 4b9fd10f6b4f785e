"""The sessions of signed-in browsers: an opaque cookie, stored by its hash alone, that can be revoked at any moment."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from api_gateway import queries
from api_gateway.usecases.sign_in import SESSION_LIFETIME, hash_secret, sign_out
from shared_clients.headers import cookies
from shared_clients.identity import Credentials
from shared_clients.postgres import Database
from shared_models.requests import Principal

CACHE_SECONDS: Final = 15.0
"""Seconds for which a session is trusted without a query; a revoked session may work that long on other replicas."""
MAX_CACHED: Final = 4096
"""Sessions in memory; beyond it, the one that was cached first is dropped."""


@dataclass(frozen=True, slots=True)
class CachedSession:
    """A session that was looked up a moment ago.

    Attributes:
        expires_at: seconds of the cache's clock.
    """

    principal: Principal
    expires_at: float


class BrowserSessions:
    """Credentials of signed-in browsers.

    Args:
        database: the gateway's schema.
        secure: whether pages are served over TLS. Without TLS, as on a laptop, browsers refuse a `__Host-` cookie.
        port: in the address of the pages; None where the address has no port. Browsers send a cookie to every port of
            its host, so the port is in the cookie's name.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        database: Database,
        *,
        secure: bool,
        port: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._secure = secure
        self.cookie = f"{'__Host-' if secure else ''}flotilla{'' if port is None else f'-{port}'}"
        self._clock = clock
        self._cache: dict[bytes, CachedSession] = {}

    async def authenticate(self, headers: Headers) -> Principal | None:
        """Return the person of the session that the cookie names; None without a cookie or a live session."""
        token = self.token(headers)
        if not token:
            return None
        token_hash, now = hash_secret(token), self._clock()
        cached = self._cache.get(token_hash)
        if cached is not None and cached.expires_at > now:
            return cached.principal
        principal = await queries.load_session(self._database, token_hash)
        self._cache.pop(token_hash, None)
        if principal is not None:
            while len(self._cache) >= MAX_CACHED:
                self._cache.pop(next(iter(self._cache)))
            self._cache[token_hash] = CachedSession(principal, now + CACHE_SECONDS)
        return principal

    def set_cookie(self, response: Response, token: str) -> None:
        """Add the cookie of a new session to a response."""
        age = int(SESSION_LIFETIME.total_seconds())
        response.set_cookie(
            self.cookie, token, max_age=age, path="/", secure=self._secure, httponly=True, samesite="strict"
        )

    async def end(self, request: Request, response: Response) -> None:
        """End the request's session: here at once, on other replicas within `CACHE_SECONDS`."""
        token = self.token(request.headers)
        if token:
            await sign_out(self._database, token)
            self.forget(token)
        response.delete_cookie(self.cookie, path="/", secure=self._secure, httponly=True, samesite="strict")

    def forget(self, token: str) -> None:
        """Look the session up again at its next use."""
        self._cache.pop(hash_secret(token), None)

    def token(self, headers: Headers) -> str:
        """Return the token in the cookie; empty without one."""
        return cookies(headers.getlist("cookie")).get(self.cookie, "")


class AnyOf:
    """Tries several credentials in turn; the first that identifies the caller decides."""

    def __init__(self, *credentials: Credentials) -> None:
        self._credentials = credentials

    async def authenticate(self, headers: Headers) -> Principal | None:
        """Return the caller; None where no credentials identify one."""
        for credentials in self._credentials:
            if (principal := await credentials.authenticate(headers)) is not None:
                return principal
        return None

"""The public keys of an OpenID Connect issuer, fetched when they are needed and kept during its outages.

Concurrent calls share one fetch. While the issuer does not answer, the keys of the last fetch stay valid, so that its
outage does not become ours. The price is that a key withdrawn meanwhile stays valid too, which is rarer than an outage.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import jwt
import structlog
from pydantic import BaseModel, JsonValue

from shared_clients.errors import OutsideError, Transient
from shared_clients.outbound import HttpClient

log = structlog.get_logger()

FRESH_SECONDS: Final = 600.0
PAUSE_SECONDS: Final = 10.0
"""Between two fetches, so that a stranger with invented key ids cannot cause many of them."""
FETCH_SECONDS: Final = 5.0
MAX_KEYS: Final = 262_144
"""The largest accepted key set, in bytes."""

Fetch = Callable[[], Awaitable[bytes]]


class _KeySet(BaseModel):
    keys: list[dict[str, JsonValue]]


class FetchedKeys:
    """The keys of an issuer.

    Args:
        fetch: returns the JSON Web Key Set.
        clock: monotonic, in seconds.
    """

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._failed = False
        self._fetches = 0
        self._fetch_lock = asyncio.Lock()

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """Return the key of this id, or None if a set that was fetched during this call does not have it.

        Raises:
            Transient: no fetched set has the key, and the issuer does not answer, or was asked too recently to be
                asked again. It may have made the key since then.
        """
        fetches_before = self._fetches
        if self._needs_fetch(kid) and not (kid in self._keys and self._fetch_lock.locked()):
            async with self._fetch_lock:
                if self._needs_fetch(kid):
                    await self._refresh()
        if kid not in self._keys and self._fetches == fetches_before:
            reason = "does not give its keys" if self._failed else "gave its keys a moment ago, without this one"
            wait = min(PAUSE_SECONDS, max(1.0, self._tried_at + PAUSE_SECONDS - self._clock()))
            raise Transient(f"the issuer of the broker's tokens {reason}", retry_after=wait)
        return self._keys.get(kid)

    def _needs_fetch(self, kid: str) -> bool:
        now = self._clock()
        fresh = kid in self._keys and now - self._fetched_at < FRESH_SECONDS
        return not fresh and now - self._tried_at >= PAUSE_SECONDS

    async def _refresh(self) -> None:
        try:
            keys = jwt.PyJWKSet(_KeySet.model_validate_json(await self._fetch()).keys).keys
        except (OutsideError, TimeoutError, ValueError, jwt.PyJWTError) as error:
            reason = f"{error!r} {error.__cause__ or ''}"
            log.warning("issuer_keys_not_fetched", error=reason[:300], kept=len(self._keys))
            self._failed = True
        else:
            self._keys = {key.key_id: key for key in keys if key.key_id}
            self._fetched_at, self._failed = self._clock(), False
            self._fetches += 1
        self._tried_at = self._clock()


def key_set_fetcher(url: str, *, ca_file: Path | None, token: Callable[[], str] | None) -> Fetch:
    """Return a function that fetches a key set without redirects or proxy, with a deadline and a size limit."""

    async def fetch() -> bytes:
        headers = {"Authorization": f"Bearer {token()}"} if token else {}
        body = b""
        async with (
            asyncio.timeout(FETCH_SECONDS),
            HttpClient(url, headers=headers, ca_file=ca_file) as issuer,
            issuer.stream("GET", url) as answer,
        ):
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_KEYS:
                    raise ValueError(f"the key set is too large: at most {MAX_KEYS} bytes are accepted")
        return body

    return fetch

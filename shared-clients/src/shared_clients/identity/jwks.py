"""The public keys of an OpenID Connect issuer, fetched when they are needed and kept through its outages.

One fetch at a time, however many ask. Keys that were good stay so while the issuer does not answer: its outage must not
become ours, and a key that leaves its set is rare where an outage is not.
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
from shared_clients.outbound import Outbound

log = structlog.get_logger()

FRESH_SECONDS: Final = 600.0
PAUSE_SECONDS: Final = 10.0
"""Between two fetches, whatever is asked: a stranger with made-up key ids must not make us hammer the issuer."""
FETCH_SECONDS: Final = 5.0
MAX_KEYS: Final = 262_144
"""Bytes of a key set."""

Fetch = Callable[[], Awaitable[bytes]]


class _KeySet(BaseModel):
    keys: list[dict[str, JsonValue]]


class FetchedKeys:
    """An issuer's keys.

    Args:
        fetch: gets the JSON Web Key Set.
        clock: seconds, rising.
    """

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._failed = False
        self._fetching = asyncio.Lock()

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """Return the key of this id, or None where the issuer has none.

        Raises:
            Transient: it is not known here, and the issuer does not answer.
        """
        if not self._settled(kid) and not (kid in self._keys and self._fetching.locked()):
            async with self._fetching:
                if not self._settled(kid):
                    await self._refresh()
        if kid not in self._keys and self._failed:
            raise Transient("the issuer of the broker's tokens does not give its keys", retry_after=PAUSE_SECONDS)
        return self._keys.get(kid)

    def _settled(self, kid: str) -> bool:
        now = self._clock()
        known = kid in self._keys and now - self._fetched_at < FRESH_SECONDS
        return known or now - self._tried_at < PAUSE_SECONDS

    async def _refresh(self) -> None:
        try:
            keys = jwt.PyJWKSet(_KeySet.model_validate_json(await self._fetch()).keys).keys
        except (OutsideError, TimeoutError, ValueError, jwt.PyJWTError) as error:
            why = f"{error!r} {error.__cause__ or ''}"
            log.warning("issuer_keys_not_fetched", error=why[:300], kept=len(self._keys))
            self._failed = True
        else:
            self._keys = {key.key_id: key for key in keys if key.key_id}
            self._fetched_at, self._failed = self._clock(), False
        self._tried_at = self._clock()


def fetching(url: str, *, ca_file: Path | None, token: Callable[[], str] | None) -> Fetch:
    """Return what gets a key set from its address: no redirects, no proxy, a deadline and a cap; see `Oidc`."""

    async def fetch() -> bytes:
        headers = {"Authorization": f"Bearer {token()}"} if token else {}
        body = b""
        async with (
            asyncio.timeout(FETCH_SECONDS),
            Outbound(url, headers=headers, ca_file=ca_file) as issuer,
            issuer.stream("GET", url) as answer,
        ):
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_KEYS:
                    raise ValueError("a key set has no more than 256 KiB")
        return body

    return fetch

"""The gateway as a service behind it sees it: calls over HTTP, each with an identity that was signed for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response

from shared_clients.identity import IDENTITY_HEADER, Issuer, TrustedKeys, generate_key, trust
from shared_models.requests import Principal
from tests.simulators.asking import somebody

KEY: Final = generate_key()


def trusted(service: str) -> TrustedKeys:
    """Return the keys that a service has to believe."""
    return trust("api-gateway", KEY.public_key(), frozenset({service}))


@dataclass
class Caller:
    """One person, who calls one service through the gateway."""

    app: FastAPI
    service: str
    principal: Principal = field(default_factory=somebody)
    sessions: frozenset[UUID] = frozenset()
    issuer: Issuer = field(default_factory=lambda: Issuer("api-gateway", KEY))

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        bare = path.partition("?")[0]
        token = self.issuer.issue(
            self.principal, audience=self.service, method=method, path=bare, sessions=self.sessions
        )
        return await self.raw(
            method, path, json=json, content=content, headers={IDENTITY_HEADER: token, **(headers or {})}
        )

    async def raw(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Call without an identity, or with whatever the headers say."""
        typed = {"content-type": "application/json"} if content is not None else {}
        async with AsyncClient(transport=ASGITransport(self.app), base_url="http://service") as client:
            return await client.request(method, path, json=json, content=content, headers={**typed, **(headers or {})})

    def another(self, *, tenant: str | None = None) -> "Caller":
        """Return somebody else, or the same person in another tenant."""
        principal = somebody() if tenant is None else self.principal.model_copy(update={"tenant": tenant})
        return Caller(self.app, self.service, principal)

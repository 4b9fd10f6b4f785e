"""Who a caller is: a port that knows nobody by default, and the dependency by which a route asks for the identity."""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from fastapi import Request

from shared_clients.identity.tokens import Identity, Verifier, no_identity
from shared_models.dead_letters import OPERATE, OPERATE_FLEET, READ_CONTENT
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal

HEADER: Final = "Flotilla-Identity"
"""Carries the token from service to service; the gateway deletes what a client sends under this name."""


class Credentials(Protocol):
    """Who a caller of the gateway is."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal | None:
        """Return who sent these headers (their names in lower case), or None for nobody we know."""


class DenyAll:
    """The default: nobody is known."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal | None:
        del headers
        return None


class DevKey:
    """One key for one developer on one laptop; production refuses to start with it."""

    def __init__(self, key: str) -> None:
        self._expected = f"Bearer {key}".encode()
        self.principal = Principal(
            issuer="flotilla-dev",
            subject="developer",
            tenant="default",
            credential="dev-key",
            channel="api",
            scopes=frozenset({"requests", "sessions", OPERATE, OPERATE_FLEET, READ_CONTENT}),
        )

    async def authenticate(self, headers: Mapping[str, str]) -> Principal | None:
        given = headers.get("authorization", "").encode()
        return self.principal if hmac.compare_digest(given, self._expected) else None


def require(verifier: Verifier, scope: str) -> Callable[[Request], Awaitable[Identity]]:
    """Return what gives a route the caller's `Identity`, or the caller a 401, or a 403 where the scope is missing."""

    async def identity(request: Request) -> Identity:
        tokens = request.headers.getlist(HEADER)
        if len(tokens) != 1:
            raise no_identity()
        caller = verifier.verify(tokens[0], request.method, request.scope["path"])
        if scope not in caller.principal.scopes:
            raise Problem(Problems.FORBIDDEN, f"This needs the scope {scope}, which the credential does not have.")
        return caller

    return identity

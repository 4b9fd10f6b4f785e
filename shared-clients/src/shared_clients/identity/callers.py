"""Authentication of callers: the port of the gateway, and the FastAPI dependency of the services behind it."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from fastapi import Request
from starlette.datastructures import Headers

from shared_clients.headers import bearer_token
from shared_clients.identity.tokens import Identity, Verifier, no_identity
from shared_models.dead_letters import OPERATE, OPERATE_FLEET, READ_CONTENT
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal

IDENTITY_HEADER: Final = "Flotilla-Identity"
"""The header of the token from service to service; the gateway removes it from requests of clients."""


class Credentials(Protocol):
    """A way to authenticate the callers of the gateway."""

    async def authenticate(self, headers: Headers) -> Principal | None:
        """Return the caller who sent these headers, or None for an unknown caller."""


class DenyAll:
    """Credentials that know no caller; the default."""

    async def authenticate(self, headers: Headers) -> Principal | None:
        del headers
        return None


class DevKey:
    """Credentials of one developer on one laptop; production refuses to start with them."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self.principal = Principal(
            issuer="flotilla-dev",
            subject="developer",
            tenant="default",
            credential="dev-key",
            channel="api",
            scopes=frozenset({"requests", "sessions", OPERATE, OPERATE_FLEET, READ_CONTENT}),
        )

    async def authenticate(self, headers: Headers) -> Principal | None:
        key = bearer_token(headers.get("authorization", "")) or ""
        return self.principal if hmac.compare_digest(key.encode(), self._key) else None


def require_scope(verifier: Verifier, scope: str) -> Callable[[Request], Awaitable[Identity]]:
    """Return a FastAPI dependency that yields the `Identity` of a caller who has the scope.

    The dependency raises:
        Problem: NO_IDENTITY (401) without a valid token, or FORBIDDEN (403) without the scope.
    """

    async def identity(request: Request) -> Identity:
        tokens = request.headers.getlist(IDENTITY_HEADER)
        if len(tokens) != 1:
            raise no_identity()
        caller = verifier.verify(tokens[0], request.method, request.scope["path"])
        if scope not in caller.principal.scopes:
            raise Problem(Problems.FORBIDDEN, f"This needs the scope {scope}, which the credential does not have.")
        return caller

    return identity

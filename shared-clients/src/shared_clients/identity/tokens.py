"""The short-lived signed identity that one service sends another: a JWT (RFC 7519), used as RFC 8725 advises.

There is one algorithm, `kid` is only a map key, and every claim is required and typed. A token is valid for one
service, method and path. Every fault of a token gives the same answer, and only the log holds the reason. Both sides
cache tokens, so a repeated call costs neither a signature nor its verification.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from uuid import UUID

import jiter
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, ValidationError

from shared_clients.identity.keys import TrustedKeys, key_id
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal

log = structlog.get_logger()

ALGORITHM: Final = "EdDSA"
LIFETIME: Final = 60
"""Seconds for which a token is valid; it is reused for the first half of them."""
LEEWAY: Final = 5
"""Seconds by which two clocks may differ."""
MAX_TOKEN: Final = 8192
CACHED: Final = 4096
"""Tokens in the cache of one issuer, and of one verifier."""

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]{1,512}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")
"""A JWS in compact form with an Ed25519 signature; other texts that a lenient decoder would accept do not match."""

_JWS: Final = jwt.PyJWS([ALGORITHM])

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller that a trusted service names, and the sessions of which that caller is a member."""

    principal: Principal
    sessions: frozenset[UUID]


class _Actor(BaseModel):
    sub: str


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    iss: str
    aud: str
    act: _Actor
    iat: int
    exp: int
    nbf: int = 0
    method: str
    path: str
    sub: str
    sub_issuer: str
    tenant: str
    credential: str
    channel: str
    scopes: frozenset[str]
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    assurance: str = ""
    sessions: frozenset[UUID]


class Issuer:
    """Signs identities on behalf of one service.

    Args:
        service: its name, as in the trusted keys of the called services.
        private_key: its key; see `generate_key` and `load_private`.
        clock: seconds since 1970.
    """

    def __init__(self, service: str, private_key: Ed25519PrivateKey, clock: Clock = time.time) -> None:
        self.service = service
        self.kid = key_id(private_key.public_key())
        self._key = private_key
        self._clock = clock
        self._signed = lru_cache(CACHED)(self._sign)

    def issue(
        self, principal: Principal, *, audience: str, method: str, path: str, sessions: frozenset[UUID] = frozenset()
    ) -> str:
        """Return a token for one method and path of one service, valid for 30 to 60 more seconds."""
        half = LIFETIME // 2
        issued_at = int(self._clock()) // half * half
        return self._signed(
            principal, audience=audience, method=method, path=path, sessions=sessions, issued_at=issued_at
        )

    def _sign(
        self, caller: Principal, *, audience: str, method: str, path: str, sessions: frozenset[UUID], issued_at: int
    ) -> str:
        claims = _Claims(
            iss=self.service,
            aud=audience,
            act=_Actor(sub=self.service),
            iat=issued_at,
            exp=issued_at + LIFETIME,
            method=method,
            path=path,
            sub=caller.subject,
            sub_issuer=caller.issuer,
            tenant=caller.tenant,
            credential=caller.credential,
            channel=caller.channel,
            scopes=caller.scopes,
            roles=caller.roles,
            groups=caller.groups,
            assurance=caller.assurance,
            sessions=sessions,
        )
        return _JWS.encode(
            claims.model_dump_json(exclude_defaults=True).encode(), self._key, ALGORITHM, {"kid": self.kid}
        )


class Verifier:
    """Verifies the identities that one service receives.

    Args:
        audience: the name of that service.
        trusted: the keys that it trusts, each with its audiences.
        clock: seconds since 1970.
    """

    def __init__(self, audience: str, trusted: TrustedKeys, clock: Clock = time.time) -> None:
        self._audience = audience
        self._trusted = trusted
        self._clock = clock
        self._checked = lru_cache(CACHED)(self._check)

    def verify(self, token: str, method: str, path: str) -> Identity:
        """Return the caller of a request.

        Raises:
            Problem: NO_IDENTITY, for any fault of the token.
        """
        try:
            claims, identity = self._checked(token)
            self._check_use(claims, method, path)
        except (_RefusedError, jwt.InvalidTokenError, ValidationError) as error:
            log.warning("identity_refused", audience=self._audience, reason=_reason(error))
            raise no_identity() from None
        return identity

    def _check(self, token: str) -> tuple[_Claims, Identity]:
        """Check the parts of a token that do not depend on the time, method or path; the result is cached."""
        if len(token) > MAX_TOKEN or not _COMPACT.fullmatch(token):
            raise _RefusedError("not a signed token in compact form")
        key = self._trusted.get(_kid(token.partition(".")[0]))
        if key is None:
            raise _RefusedError("its header is not ours")
        claims = _parse(_JWS.decode(token, key.public, [ALGORITHM]))
        if claims.aud != self._audience or claims.aud not in key.audiences:
            raise _RefusedError("it is for another service")
        if claims.iss != key.issuer or claims.act.sub != key.issuer:
            raise _RefusedError("its issuer does not have this key")
        if not 0 < claims.exp - claims.iat <= LIFETIME:
            raise _RefusedError("it is valid for too long")
        return claims, _identity(claims)

    def _check_use(self, claims: _Claims, method: str, path: str) -> None:
        now = self._clock()
        if not max(claims.iat, claims.nbf) - LEEWAY <= now < claims.exp + LEEWAY:
            raise _RefusedError("it is expired, or not valid yet")
        if claims.method != method or claims.path != path:
            raise _RefusedError("it is for another method or path")


def no_identity() -> Problem:
    """Return the problem for every caller who is not authenticated."""
    return Problem(
        Problems.NO_IDENTITY,
        "expected the header Authorization: Bearer <key>, with a key that is valid here",
        headers={"WWW-Authenticate": 'Bearer realm="flotilla"'},
    )


class _RefusedError(Exception):
    """A token is refused; the message is for the log."""


@lru_cache(maxsize=64)
def _kid(header: str) -> str:
    """Return the key id in the header of a token; the header is the same for all tokens of one key."""
    claimed = _JWS.get_unverified_header(f"{header}.e30.{'A' * 86}")
    if claimed != {"alg": ALGORITHM, "kid": claimed.get("kid"), "typ": "JWT"}:
        raise _RefusedError("its header is not ours")
    return str(claimed["kid"])


def _parse(payload: bytes) -> _Claims:
    try:
        jiter.from_json(payload, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError:
        raise _RefusedError("its claims are not proper JSON") from None
    return _Claims.model_validate_json(payload)


def _identity(claims: _Claims) -> Identity:
    principal = Principal(
        issuer=claims.sub_issuer,
        subject=claims.sub,
        tenant=claims.tenant,
        credential=claims.credential,
        channel=claims.channel,
        scopes=claims.scopes,
        roles=claims.roles,
        groups=claims.groups,
        assurance=claims.assurance,
    )
    return Identity(principal, claims.sessions)


def _reason(error: Exception) -> str:
    """Return the reason of a refusal, without the values in the token."""
    if isinstance(error, ValidationError):
        faulty = {str(fault["loc"][0]) if fault["loc"] else "all" for fault in error.errors(include_input=False)}
        return f"claims missing or of the wrong type: {sorted(faulty)}"
    return str(error)[:200]

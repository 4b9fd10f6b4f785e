"""Who may hand this process events: a broker, known by a shared secret on a laptop and by OpenID Connect elsewhere.

Each process also shows the broker who it is, by the same secret or by the token of its own service account, which
Kubernetes keeps fresh in a file.
"""

import hmac
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final

import jwt
import structlog
from pydantic import BaseModel, ConfigDict, Field

from shared_clients.errors import Transient
from shared_clients.identity.jwks import Fetch, FetchedKeys, fetching
from shared_clients.identity.tokens import LEEWAY, MAX_TOKEN, no_identity

log = structlog.get_logger()

ALGORITHMS: Final = ("RS256", "ES256")
_REQUIRED: Final = ["exp", "iat", "iss", "aud", "sub"]


class Oidc(BaseModel):
    """How tokens of the broker are checked, and where ours is.

    Attributes:
        issuer: of the tokens, as their `iss` says.
        jwks_url: where its public keys are.
        senders: whose tokens are good here (`sub`), each exact or with a `*` at its end. Anybody in a cluster can have
            a token made for any audience, so the audience alone proves nothing.
        token_file: our own token for the broker's audience, read anew for each event.
        ca_file: the authority of `jwks_url`, where the machine does not know it.
        jwks_token_file: a token to show at `jwks_url`, which a cluster's own issuer asks for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[str, Field(pattern="^https://")]
    jwks_url: Annotated[str, Field(pattern="^https://")]
    senders: Annotated[tuple[Annotated[str, Field(pattern=r"^[^*]+\*?$")], ...], Field(min_length=1)]
    token_file: Path
    ca_file: Path | None = None
    jwks_token_file: Path | None = None


class SharedSecret:
    """One secret that broker and services share, for one developer on one laptop."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._expected = f"Bearer {secret}".encode()

    def token(self) -> str:
        return self._secret

    async def verify_sender(self, authorization: str) -> None:
        """Return for whoever knows the secret.

        Raises:
            Problem: NO_IDENTITY, for anybody else.
        """
        if not hmac.compare_digest(authorization.encode(), self._expected):
            log.warning("sender_refused", reason="not the shared secret")
            raise no_identity()


class OidcSenders:
    """The broker, as an OpenID Connect issuer vouches for it, and our own token for it.

    Args:
        oidc: whom to believe.
        audience: this service's name, as the Trigger's subscriber has it.
        fetch: gets the issuer's keys; from their address, unless it is given.
    """

    def __init__(self, oidc: Oidc, audience: str, fetch: Fetch | None = None) -> None:
        self._oidc = oidc
        self._audience = audience
        shown = mounted(oidc.jwks_token_file) if oidc.jwks_token_file else None
        self._keys = FetchedKeys(fetch or fetching(oidc.jwks_url, ca_file=oidc.ca_file, token=shown))
        self.token = mounted(oidc.token_file)

    async def verify_sender(self, authorization: str) -> None:
        """Return for the broker.

        Raises:
            Problem: NO_IDENTITY, whatever is wrong with the token.
            Transient: the issuer's keys cannot be had now, so nobody knows.
        """
        try:
            await self._check(authorization[:MAX_TOKEN])
        except jwt.InvalidTokenError as error:
            log.warning("sender_refused", audience=self._audience, reason=str(error)[:200])
            raise no_identity() from None

    async def _check(self, authorization: str) -> None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise jwt.InvalidTokenError("no bearer token")
        kid = jwt.get_unverified_header(token).get("kid")
        key = await self._keys.find(kid) if isinstance(kid, str) else None
        if key is None:
            raise jwt.InvalidTokenError("its key is not one of the issuer's")
        claims = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=self._audience,
            issuer=self._oidc.issuer,
            leeway=LEEWAY,
            options={"require": _REQUIRED},
        )
        if not any(fnmatchcase(claims["sub"], sender) for sender in self._oidc.senders):
            raise jwt.InvalidTokenError("its subject is not one of the senders")


def mounted(path: Path) -> Callable[[], str]:
    """Return what reads a token from a file that somebody else keeps fresh, as it is at that moment.

    Calling it raises Transient where there is none.
    """

    def read() -> str:
        try:
            return path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Transient(f"the token in {path} cannot be read: {error}") from error

    return read

"""Authentication of the broker that sends events: a shared secret on a laptop, OpenID Connect elsewhere.

Each process also authenticates itself to the broker: with the same secret, or with the token of its own service
account, which Kubernetes keeps fresh in a file.
"""

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import jwt
import structlog
from pydantic import BaseModel, ConfigDict, Field

from shared_clients.errors import Transient
from shared_clients.headers import bearer_token
from shared_clients.identity.jwks import Fetch, FetchedKeys, key_set_fetcher
from shared_clients.identity.tokens import LEEWAY, MAX_TOKEN, no_identity

log = structlog.get_logger()

ALGORITHMS: Final = ("RS256", "ES256")
_REQUIRED: Final = ["exp", "iat", "iss", "aud", "sub"]


class OidcSettings(BaseModel):
    """How tokens of the broker are checked, and where the token of this process is.

    Attributes:
        issuer: the expected `iss` of the tokens.
        jwks_url: the address of its public keys.
        senders: the accepted subjects (`sub`), each exact or with a `*` at its end. Any workload of a cluster can get a
            token for any audience, so the audience alone proves nothing.
        token_file: the token of this process for the broker's audience, read anew for each event.
        ca_file: the certificate authority of `jwks_url`, where the machine does not have it.
        jwks_token_file: a token for requests to `jwks_url`, which the issuer of a cluster requires.
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

    def token(self) -> str:
        return self._secret

    async def verify_sender(self, authorization: str) -> None:
        """Accept an Authorization header that holds the secret.

        Raises:
            Problem: NO_IDENTITY, if it does not.
        """
        if not hmac.compare_digest((bearer_token(authorization) or "").encode(), self._secret.encode()):
            log.warning("sender_refused", reason="not the shared secret")
            raise no_identity()


class OidcSenders:
    """Verifies tokens of the broker by OpenID Connect, and reads the token of this process.

    Args:
        oidc: the issuer and the accepted senders.
        audience: the name of this service, as in the subscriber of the Trigger.
        fetch: returns the keys of the issuer; by default from `jwks_url`.
    """

    def __init__(self, oidc: OidcSettings, audience: str, fetch: Fetch | None = None) -> None:
        self._oidc = oidc
        self._audience = audience
        jwks_token = token_file_reader(oidc.jwks_token_file) if oidc.jwks_token_file else None
        self._keys = FetchedKeys(fetch or key_set_fetcher(oidc.jwks_url, ca_file=oidc.ca_file, token=jwks_token))
        self.token = token_file_reader(oidc.token_file)

    async def verify_sender(self, authorization: str) -> None:
        """Accept an Authorization header with a valid token of an accepted sender.

        Raises:
            Problem: NO_IDENTITY, for any fault of the token.
            Transient: the keys of the issuer cannot be fetched now, so the token cannot be checked.
        """
        try:
            await self._check(authorization[:MAX_TOKEN])
        except jwt.InvalidTokenError as error:
            log.warning("sender_refused", audience=self._audience, reason=str(error)[:200])
            raise no_identity() from None

    async def _check(self, authorization: str) -> None:
        token = bearer_token(authorization)
        if token is None:
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
        if not any(_matches(sender, claims["sub"]) for sender in self._oidc.senders):
            raise jwt.InvalidTokenError("its subject is not one of the senders")


def _matches(sender: str, subject: str) -> bool:
    """Tell whether a subject is the sender, or begins with the text before the `*` at its end."""
    return subject.startswith(sender[:-1]) if sender.endswith("*") else subject == sender


def token_file_reader(path: Path) -> Callable[[], str]:
    """Return a function that reads the current token from a file that another program keeps fresh.

    The function raises Transient if the file cannot be read.
    """

    def read() -> str:
        try:
            return path.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise Transient(f"the token file of FLOTILLA_EVENTS_OIDC cannot be read: {type(error).__name__}") from error

    return read

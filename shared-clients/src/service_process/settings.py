"""The settings that every service process has; a service's own `settings.py` adds its few.

They come from the environment with the prefix `FLOTILLA_`, are read once, at the start, and are handed on as values:
nothing else reads the environment. Every field says its unit and why it has its default.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared_clients.bus import BrokerAuthentication
from shared_clients.errors import Permanent
from shared_clients.identity import Oidc, OidcSenders, SharedSecret, TrustedKeys, load_trusted
from shared_clients.secret_files import SECRET_FOLDERS

MIN_SECRET: Final = 16
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
CONTAINER_MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""What Docker and Podman leave in a container: a process in one has a network of its own."""


class Mode(StrEnum):
    """`production` unless somebody says `dev`; nothing infers it."""

    PRODUCTION = "production"
    DEV = "dev"


class ProcessSettings(BaseSettings):
    """What a service process is told from outside, by a variable or by a file in `SECRET_FOLDERS`.

    Attributes:
        mode: production refuses what is only fit for a laptop.
        database_url: `postgresql://…`; the service uses its own schema in it.
        bus_url: `kafka://host:port[,host:port]`, or `memory://` in one process.
        redis_url: `redis://…` or `rediss://…`, or `memory://` in one process.
        host, port: where this process listens; loopback, so that a pod has to say that it wants more.
        log_level: debug, info, warning or error.
        failpoints: a folder with which tests have this process die in known places; production refuses it.
        otlp_endpoint: an OpenTelemetry collector; without it traces are not recorded.
        auth_trusted_keys: a file with the public keys of those who may vouch for callers; a service behind the gateway
            needs it unless it shares its process.
    """

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_", secrets_dir=SECRET_FOLDERS, extra="ignore", frozen=True)

    mode: Mode = Mode.PRODUCTION
    database_url: SecretStr
    bus_url: str
    redis_url: SecretStr
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    failpoints: Path | None = None
    otlp_endpoint: str | None = None
    auth_trusted_keys: Path | None = None

    def trusted(self) -> TrustedKeys:
        """Read the trusted keys.

        Raises:
            Permanent: no file is named, or it cannot be used.
        """
        if self.auth_trusted_keys is None:
            raise Permanent("FLOTILLA_AUTH_TRUSTED_KEYS has to name the file with the gateway's public key")
        try:
            return load_trusted(self.auth_trusted_keys.read_text())
        except (OSError, ValueError) as error:
            raise Permanent(f"FLOTILLA_AUTH_TRUSTED_KEYS ({self.auth_trusted_keys}) cannot be used: {error}") from error

    def refuse_if_unfit(self, container_marks: Sequence[Path] = CONTAINER_MARKS) -> None:
        """Refuse what this mode forbids: in production a laptop's stores, in dev an address that others can reach.

        In a container it is the port's publication that decides who reaches it, so there dev may listen anywhere.

        Raises:
            Permanent: naming the setting.
        """
        if self.mode is Mode.DEV:
            if self.host not in LOOPBACK and not any(mark.exists() for mark in container_marks):
                expected = f"in dev mode, outside of a container, it has to be one of {', '.join(sorted(LOOPBACK))}"
                raise Permanent(f"FLOTILLA_HOST is {self.host}: {expected}, where nobody else gets in with the dev key")
            return
        if self.failpoints is not None:
            raise Permanent(f"FLOTILLA_FAILPOINTS is {self.failpoints}, which production refuses: it ends processes")
        for name, value in (("BUS", self.bus_url), ("REDIS", self.redis_url.get_secret_value())):
            if value.startswith("memory:"):
                raise Permanent(f"FLOTILLA_{name}_URL is {value}, which production refuses: a restart loses it")

    def broker_authentication(self, audience: str) -> BrokerAuthentication | None:
        """Return how this process and the broker of its bus know each other; None where the bus is no broker.

        Args:
            audience: the service's name: the broker's tokens have to be for it.

        Raises:
            Permanent: naming the setting that is missing, or that this mode forbids.
        """
        if not self.bus_url.startswith("http"):
            return None
        events = EventSettings()
        if events.events_oidc is not None:
            senders = OidcSenders(events.events_oidc, audience)
            return BrokerAuthentication(senders.token, senders.verify_sender)
        if self.mode is Mode.PRODUCTION:
            raise Permanent("FLOTILLA_EVENTS_OIDC has to say who may send events: FLOTILLA_BUS_URL is a broker's")
        secret = events.events_secret.get_secret_value()
        if len(secret) < MIN_SECRET:
            shared_by = f"at least {MIN_SECRET} characters that this process and its broker share"
            raise Permanent(f"FLOTILLA_EVENTS_SECRET has {len(secret)}; it has to have {shared_by}")
        shared = SharedSecret(secret)
        return BrokerAuthentication(shared.token, shared.verify_sender)


class EventSettings(BaseSettings):
    """What a process whose bus is a broker over HTTP is told besides.

    Attributes:
        events_secret: shared with the broker, in dev only; at least `MIN_SECRET` characters.
        events_oidc: one JSON object with the members of `identity.Oidc`.
    """

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_", secrets_dir=SECRET_FOLDERS, extra="ignore", frozen=True)

    events_secret: SecretStr = SecretStr("")
    events_oidc: Oidc | None = None

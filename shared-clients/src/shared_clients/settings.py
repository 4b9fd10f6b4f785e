"""The settings that every service process has; a service's own `settings.py` adds its few.

They come from the environment with the prefix `FLOTILLA_`, are read once, at the start, and are handed on as values:
nothing else reads the environment. Every field says its unit and why it has its default.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared_clients.errors import Permanent
from shared_clients.identity import TrustedKeys, load_trusted

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class Mode(StrEnum):
    """`production` unless somebody says `dev`; nothing infers it."""

    PRODUCTION = "production"
    DEV = "dev"


class ProcessSettings(BaseSettings):
    """What a service process is told from outside.

    Attributes:
        mode: production refuses what is only fit for a laptop.
        database_url: `postgresql://…`; the service uses its own schema in it.
        bus_url: `kafka://host:port[,host:port]`, or `memory://` in one process.
        redis_url: `redis://…` or `rediss://…`, or `memory://` in one process.
        host, port: where this process listens; loopback, so that a pod has to say that it wants more.
        log_level: debug, info, warning or error.
        log_json: one JSON object a line, for pods; text for people otherwise.
        otlp_endpoint: an OpenTelemetry collector; without it traces are not recorded.
        auth_trusted_keys: a file with the public keys of those who may vouch for callers; a service behind the gateway
            needs it unless it shares its process.
    """

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_", extra="ignore", frozen=True)

    mode: Mode = Mode.PRODUCTION
    database_url: SecretStr
    bus_url: str
    redis_url: SecretStr
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    log_json: bool = True
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

    def refuse_if_unfit(self) -> None:
        """Refuse what this mode forbids: in production a laptop's stores, in dev an address that others can reach.

        Raises:
            Permanent: naming the setting.
        """
        if self.mode is Mode.DEV:
            if self.host not in LOOPBACK:
                expected = f"in dev mode it has to be one of {', '.join(sorted(LOOPBACK))}"
                raise Permanent(f"FLOTILLA_HOST is {self.host}: {expected}, where nobody else gets in with the dev key")
            return
        for name, value in (("BUS", self.bus_url), ("REDIS", self.redis_url.get_secret_value())):
            if value.startswith("memory:"):
                raise Permanent(f"FLOTILLA_{name}_URL is {value}, which production refuses: a restart loses it")

"""The settings that every service process has; a service's own `settings.py` adds its few.

They come from the environment with the prefix `FLOTILLA_`, are read once at the start, and are passed on as values: no
other code reads the environment. Every field documents its unit and the reason of its default.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from service_process.production import MIN_SECRET, refuse_unfit_role, refuse_unfit_store
from shared_clients.bus import BrokerAuthentication
from shared_clients.errors import Permanent, WrongSettings
from shared_clients.identity import OidcSenders, OidcSettings, SharedSecret, TrustedKeys, load_trusted
from shared_clients.secret_files import SECRET_FOLDERS, read_named_file

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
CONTAINER_MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""The files by which Docker and Podman mark a container, where a process has a network of its own."""


def load_settings[S: BaseSettings](model: type[S], **given: object) -> S:
    """Read settings from the environment and from mounted secret files.

    Args:
        model: the settings to read.
        given: values that replace the environment's.

    Raises:
        WrongSettings: with a line for each variable that is missing or has a wrong value; no line shows a value.
    """
    read: Callable[..., S] = model
    try:
        return read(**given)
    except ValidationError as error:
        lines = [f"{_named(model, fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise WrongSettings("\n".join(lines)) from error
    except SettingsError as error:
        raise WrongSettings(f"{error} ({error.__cause__}); expected JSON") from error


def _named(model: type[BaseSettings], path: tuple[int | str, ...]) -> str:
    """Return the name of a variable and of the known member in it; an unknown member may be a secret."""
    prefix = model.model_config.get("env_prefix", "")
    if not path:
        return f"the variables {prefix}*"
    field, members = str(path[0]), path[1:2]
    known = _member_names(model.model_fields[field].annotation) if field in model.model_fields else frozenset()
    member = next((f" ({step})" for step in members if step in known), "")
    return f"{prefix}{field}".upper() + member


def _member_names(annotation: object) -> frozenset[str]:
    """Return the names of the fields of a model, or of the models in a union."""
    types = (annotation, *get_args(annotation))
    return frozenset(
        name for one in types if isinstance(one, type) and issubclass(one, BaseModel) for name in one.model_fields
    )


class Mode(StrEnum):
    """The mode of a process: `production`, unless it is set to `dev`; it is never inferred."""

    PRODUCTION = "production"
    DEV = "dev"


class ProcessSettings(BaseSettings):
    """The settings of a service process, each from a variable or from a file in `SECRET_FOLDERS`.

    Attributes:
        mode: production refuses settings that are only fit for a laptop.
        database_url: `postgresql://…`; the service uses its own schema in it.
        bus_url: `kafka://host:port[,host:port]`, with the parameters of `bus.kafka_cluster.KafkaSecurity` for TLS and
            SASL, or `memory://` in one process.
        redis_url: `redis://…`, or `rediss://user:password@host:port/0?ssl_ca_certs=…`, or `memory://` in one process.
        host: the address on which this process listens; loopback by default; any other address has to be set on
            purpose.
        port: the port on which this process listens.
        log_level: debug, info, warning or error.
        failpoints: the folder of the armed failpoints, by which tests kill this process; production refuses it.
        otlp_endpoint: an OpenTelemetry collector; without it traces are not recorded.
        auth_trusted_keys: a file with the public keys of the services that may name callers; a service behind the
            gateway needs it unless it shares the process of the gateway.
    """

    model_config = SettingsConfigDict(
        env_prefix="FLOTILLA_", secrets_dir=SECRET_FOLDERS, extra="ignore", frozen=True, hide_input_in_errors=True
    )

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
            Permanent: the setting is missing, or the file cannot be used.
        """
        if self.auth_trusted_keys is None:
            raise Permanent("FLOTILLA_AUTH_TRUSTED_KEYS has to name the file with the gateway's public key")
        text = read_named_file("FLOTILLA_AUTH_TRUSTED_KEYS", self.auth_trusted_keys, "the gateway's public key")
        try:
            return load_trusted(text)
        except ValueError as error:
            raise Permanent(f"the file that FLOTILLA_AUTH_TRUSTED_KEYS names cannot be used: {error}") from error

    def refuse_if_unfit(self, container_marks: Sequence[Path] = CONTAINER_MARKS) -> None:
        """Refuse settings that the mode forbids: unfit stores in production, and a reachable address in dev.

        A container is reached only through its published ports, so in a container dev may listen on any address.

        Raises:
            Permanent: names the setting.
        """
        if self.mode is Mode.DEV:
            if self.host not in LOOPBACK and not any(mark.exists() for mark in container_marks):
                expected = f"in dev mode, outside of a container, it has to be one of {', '.join(sorted(LOOPBACK))}"
                raise Permanent(f"FLOTILLA_HOST: {expected}, because the dev key would let in other machines")
            return
        if self.failpoints is not None:
            raise Permanent("FLOTILLA_FAILPOINTS is set, which production refuses: it kills processes; unset it")
        trusted = load_settings(ProductionSettings).trusted_store_names
        for name, url in self._stores().items():
            refuse_unfit_store(f"FLOTILLA_{name.upper()}_URL", url, trusted=name in trusted)

    async def refuse_if_role_unfit(self) -> None:
        """Refuse in production a database role that row-level security does not bind; see `refuse_unfit_role`."""
        if self.mode is Mode.PRODUCTION:
            await refuse_unfit_role(self.database_url.get_secret_value())

    def _stores(self) -> Mapping[str, str]:
        return {
            "database": self.database_url.get_secret_value(),
            "bus": self.bus_url,
            "redis": self.redis_url.get_secret_value(),
        }

    def broker_authentication(self, audience: str) -> BrokerAuthentication | None:
        """Return how this process and its broker authenticate each other; None where the bus is no broker.

        Args:
            audience: the name of the service, which the tokens of the broker have to name.

        Raises:
            Permanent: names the setting that is missing, or that this mode forbids.
        """
        if not self.bus_url.startswith("http"):
            return None
        events = load_settings(EventSettings)
        if events.events_oidc is not None:
            senders = OidcSenders(events.events_oidc, audience)
            return BrokerAuthentication(senders.token, senders.verify_sender)
        if self.mode is Mode.PRODUCTION:
            raise Permanent("FLOTILLA_EVENTS_OIDC has to say who may send events: FLOTILLA_BUS_URL is a broker's")
        secret = events.events_secret.get_secret_value()
        if len(secret) < MIN_SECRET:
            shared_by = f"at least {MIN_SECRET} characters that this process and its broker share"
            raise Permanent(f"FLOTILLA_EVENTS_SECRET has {len(secret)} characters; it has to have {shared_by}")
        shared = SharedSecret(secret)
        return BrokerAuthentication(shared.token, shared.verify_sender)


class ProductionSettings(BaseSettings):
    """Further settings of a process in production mode.

    Attributes:
        trusted_stores: the stores that it may reach without encryption, of `database`, `bus` and `redis`, with commas
            between them; for a network that only this fleet can reach.
        metrics_port: the port of a gateway's `/metrics`, apart from the port that strangers reach.
    """

    model_config = SettingsConfigDict(
        env_prefix="FLOTILLA_", secrets_dir=SECRET_FOLDERS, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    trusted_stores: Annotated[str, Field(pattern=r"^ *((database|bus|redis)( *, *(database|bus|redis))*)? *$")] = ""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9090

    @property
    def trusted_store_names(self) -> frozenset[str]:
        return frozenset(name.strip() for name in self.trusted_stores.split(",") if name.strip())


class EventSettings(BaseSettings):
    """Further settings of a process whose bus is a broker over HTTP.

    Attributes:
        events_secret: shared with the broker, in dev only; at least `MIN_SECRET` characters.
        events_oidc: one JSON object with the members of `identity.OidcSettings`.
    """

    model_config = SettingsConfigDict(
        env_prefix="FLOTILLA_", secrets_dir=SECRET_FOLDERS, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    events_secret: SecretStr = SecretStr("")
    events_oidc: OidcSettings | None = None

"""The settings of a fleet on a laptop; no other module of this package reads the environment."""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from service_process.settings import load_settings
from shared_clients.secret_files import SECRET_FOLDERS

type SettingsType = type[BaseSettings]

SYSTEM: Final = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|SSL_CERT_(FILE|DIR)|PYTHON\w*|LD_LIBRARY_PATH"
)
"""Names of variables that every process may have, because none of them holds a secret."""


class FleetSettings(BaseSettings):
    """The settings of every command that runs or opens a fleet on this machine.

    Attributes:
        home: the folder for conversations, keys and the embedded Postgres.
        port: the port of the web chat and the API.
        auth_dev_key: the API key of this laptop; without it one is made once and kept in `home`.
        agent_configs: the folder with `agents/` and `scripts/`.
        default_agent: the agent that answers if neither a request nor its session names one.
        log_level: debug, info, warning or error.
        database_url: an existing Postgres for `up --processes` and `migrate`; without it one is started.
        bus_url: an existing Kafka for `up --processes`; without it one is started. `http://` alone starts
            mock-eventing.
        redis_url: an existing Redis for `up --processes`; without it one is started.
        audit_key: a file with the key that signs the anchors of the audit log (PEM, Ed25519); by default one in `home`.
        audit_previous_key: a file with the key (PEM) that signed the anchors before `audit_key` replaced it.
        audit_anchors: the folder of the anchor files; by default one in `home`.
    """

    model_config = SettingsConfigDict(
        env_prefix="FLOTILLA_", secrets_dir=SECRET_FOLDERS, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    home: Path = Path(".flotilla")
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    auth_dev_key: SecretStr | None = None
    agent_configs: Path = Path("agent-configs")
    default_agent: str = "assistant"
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "warning"
    database_url: SecretStr | None = None
    bus_url: str | None = None
    redis_url: SecretStr | None = None
    audit_key: Path | None = None
    audit_previous_key: Path | None = None
    audit_anchors: Path | None = None

    @property
    def allowed_hosts(self) -> str:
        """The Host headers of browsers on this machine, as `FLOTILLA_ALLOWED_HOSTS` takes them."""
        return ",".join(f"{name}:{self.port}" for name in ("localhost", "127.0.0.1", "[::1]"))

    @property
    def chosen_key(self) -> str | None:
        return self.auth_dev_key.get_secret_value() if self.auth_dev_key else None


def read_settings() -> FleetSettings:
    """Read the settings from the environment and from mounted secret files.

    Raises:
        WrongSettings: with a line for each variable that has a wrong value.
    """
    return load_settings(FleetSettings)


def variables_of(*settings: SettingsType) -> frozenset[str]:
    """Return the names of the variables that some types of settings read."""
    return frozenset(
        f"{type_.model_config.get('env_prefix', '')}{field}".upper()
        for type_ in settings
        for field in type_.model_fields
    )


def own_environment(given: Mapping[str, str], variables: Collection[str]) -> dict[str, str]:
    """Return the variables that a process may have: those of the system, and its own.

    Args:
        given: the environment of this process, and the values that a fleet adds.
        variables: the names of the process's own variables.
    """
    return {name: value for name, value in given.items() if name in variables or SYSTEM.fullmatch(name)}


def inherited_environment() -> dict[str, str]:
    """Return the environment of this process; the settings of a child override it, see `own_environment`."""
    return dict(os.environ)

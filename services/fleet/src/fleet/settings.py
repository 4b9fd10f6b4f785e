"""The settings of a fleet on a laptop; no other module of this package reads the environment."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.errors import WrongSettings
from shared_clients.secret_files import SECRET_FOLDERS


class FleetSettings(BaseSettings):
    """The settings of every command that runs or opens a fleet on this machine.

    Attributes:
        home: the folder for conversations, keys and the embedded Postgres.
        port: the port of the web chat and the API.
        auth_dev_key: the API key of this laptop; without it one is made once and kept in `home`.
        agent_configs: the folder with `agents/` and `scripts/`.
        log_level: debug, info, warning or error.
        database_url: an existing Postgres for `up --processes` and `migrate`; without it one is started.
        bus_url: an existing Kafka for `up --processes`; without it one is started. `http://` alone starts
        mock-eventing. redis_url: an existing Redis for `up --processes`; without it one is started. audit_key: a file
        with the key that signs the anchors of the audit log (PEM, Ed25519); by default one in `home`. audit_anchors:
        the folder of the anchor files; by default one in `home`.
    """

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_", secrets_dir=SECRET_FOLDERS, extra="ignore", frozen=True)

    home: Path = Path(".flotilla")
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    auth_dev_key: SecretStr | None = None
    agent_configs: Path = Path("agent-configs")
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "warning"
    database_url: SecretStr | None = None
    bus_url: str | None = None
    redis_url: SecretStr | None = None
    audit_key: Path | None = None
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
    try:
        return FleetSettings()
    except ValidationError as error:
        lines = [f"FLOTILLA_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors()]
        raise WrongSettings("\n".join(lines)) from error


def inherited_environment() -> dict[str, str]:
    """Return our own environment, over which the settings of a service process are laid."""
    return dict(os.environ)

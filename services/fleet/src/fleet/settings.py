"""The settings of a laptop's fleet; nothing else here reads the environment."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared_clients.secret_files import SECRET_FOLDERS


class FleetSettings(BaseSettings):
    """What `flotilla up` and its sisters are told from outside.

    Attributes:
        home: where conversations, keys and the embedded Postgres are kept.
        port: of the web chat and the API.
        auth_dev_key: the API key of this laptop; without it one is made once and kept in `home`.
        agent_configs: the folder with `agents/` and `scripts/`.
        log_level: debug, info, warning or error.
        database_url: an existing Postgres for `up --processes` and `migrate`, instead of one that is started.
        bus_url: an existing Kafka for `up --processes`, likewise; or `http://` for a broker of its own instead.
        redis_url: an existing Redis for `up --processes`, likewise.
        audit_key: a file with the key that signs the audit log's anchors (PEM, Ed25519); by default one in `home`.
        audit_previous_key: a file with the key (PEM) that signed the anchors before `audit_key` replaced it.
        audit_anchors: the folder that anchors are appended to; by default one in `home`.
    """

    model_config = SettingsConfigDict(
        env_prefix="FLOTILLA_", secrets_dir=SECRET_FOLDERS, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    home: Path = Path(".flotilla")
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    auth_dev_key: SecretStr | None = None
    agent_configs: Path = Path("agent-configs")
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "warning"
    database_url: SecretStr | None = None
    bus_url: str | None = None
    redis_url: SecretStr | None = None
    audit_key: Path | None = None
    audit_previous_key: Path | None = None
    audit_anchors: Path | None = None

    @property
    def hosts(self) -> str:
        """What a browser on this machine may call us, as `FLOTILLA_ALLOWED_HOSTS` takes it."""
        return ",".join(f"{name}:{self.port}" for name in ("localhost", "127.0.0.1", "[::1]"))


def inherited() -> dict[str, str]:
    """Return our environment for service processes: what they have to be told anew is put over it."""
    return dict(os.environ)

"""The settings of a laptop's fleet; nothing else here reads the environment."""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared_clients.secret_files import SECRET_FOLDERS

SYSTEM: Final = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|SSL_CERT_(FILE|DIR)|PYTHON\w*|LD_LIBRARY_PATH"
)
"""Names of variables that every process may have, because none of them holds a secret."""


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


def variables_of(*settings: type[BaseSettings]) -> frozenset[str]:
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


def inherited() -> dict[str, str]:
    """Return this process's environment; `own_environment` selects the part of a service process."""
    return dict(os.environ)

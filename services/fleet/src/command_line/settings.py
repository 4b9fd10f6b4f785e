"""The settings of a command that speaks HTTP to a fleet; no other module here reads the environment.

`fleet.settings` has more of them, and needs pydantic-settings, whose import takes as long as a whole command here.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from shared_clients.errors import Permanent
from shared_clients.secret_files import SECRET_FOLDERS


@dataclass(frozen=True, slots=True)
class Settings:
    """How a command finds the fleet of this machine.

    Attributes:
        home: the folder in which the fleet keeps its API key.
        port: the fleet's, on the loopback interface.
        auth_dev_key: the API key, where one was chosen.
    """

    home: Path
    port: int
    auth_dev_key: SecretStr | None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"


def read_settings() -> Settings:
    """Read `FLOTILLA_HOME`, `FLOTILLA_PORT` and `FLOTILLA_AUTH_DEV_KEY`.

    Raises:
        Permanent: the port is not one.
    """
    port = _value("FLOTILLA_PORT") or "8080"
    if not (port.isdecimal() and 1 <= int(port) <= 65535):
        raise Permanent(f"FLOTILLA_PORT is {port[:20]!r}; expected a number from 1 to 65535")
    key = _value("FLOTILLA_AUTH_DEV_KEY")
    return Settings(Path(_value("FLOTILLA_HOME") or ".flotilla"), int(port), SecretStr(key) if key else None)


def _value(name: str) -> str | None:
    """Return a variable, or the mounted secret file of that name."""
    files = [folder / name.lower() for folder in SECRET_FOLDERS]
    return os.environ.get(name) or next((file.read_text().strip() for file in files if file.is_file()), None)

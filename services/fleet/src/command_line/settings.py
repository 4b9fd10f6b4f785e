"""The settings of a command that speaks HTTP to a fleet; no other module here reads the environment.

`fleet.settings` has more of them, and needs pydantic-settings, whose import takes longer than a whole command here.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from command_line.local import WrongSettings
from shared_clients.secret_files import SECRET_FOLDERS

COMPLETE_VARIABLE: Final = "_FLOTILLA_COMPLETE"
"""The variable by which a shell's completion script asks for completions; click reads it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a command finds the fleet of this machine.

    Attributes:
        state_folder: the folder in which the fleet keeps its API key (`FLOTILLA_HOME`).
        port: the fleet's port on the loopback interface.
        auth_dev_key: the API key, where the environment names one.
    """

    state_folder: Path
    port: int
    auth_dev_key: str | None = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"


def read_settings() -> Settings:
    """Read `FLOTILLA_HOME`, `FLOTILLA_PORT` and `FLOTILLA_AUTH_DEV_KEY`.

    Raises:
        WrongSettings: the port is no number from 1 to 65535.
    """
    port = _value("FLOTILLA_PORT") or "8080"
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise WrongSettings("FLOTILLA_PORT: expected an integer from 1 to 65535")
    return Settings(Path(_value("FLOTILLA_HOME") or ".flotilla"), int(port), _value("FLOTILLA_AUTH_DEV_KEY"))


def _value(name: str) -> str | None:
    """Return a variable, or the text of the mounted secret file of that name."""
    files = [folder / name.lower() for folder in SECRET_FOLDERS]
    return os.environ.get(name) or next((file.read_text().strip() for file in files if file.is_file()), None)

"""The one seam of the command line for imports on demand, and the only module here that imports `fleet`.

A command is imported when it is run, so that `flotilla --help` imports none of them. `fleet` imports every service,
which takes seconds; only the commands that run or open a fleet on this machine pay for it. The two modules of `fleet`
that are imported by name need the standard library alone.
"""

import importlib
from types import ModuleType

import click

from fleet.errors import WrongSettings
from fleet.state_folder import load_dev_key, open_state_folder

__all__ = ["WrongSettings", "fleet_module", "load_command", "load_dev_key", "open_state_folder"]


def load_command(name: str) -> click.Command:
    """Import a command: the function of its name, in the module of its name, with underscores for hyphens."""
    name = name.replace("-", "_")
    command = getattr(importlib.import_module(f"command_line.{name}"), name)
    assert isinstance(command, click.Command)
    return command


def fleet_module(name: str) -> ModuleType:
    """Return the module of that name in `fleet`."""
    return importlib.import_module(f"fleet.{name}")

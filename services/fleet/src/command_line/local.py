"""The one place where the command line imports the fleet, for the commands that run or open it on this machine.

`fleet` imports every service, which takes seconds; the other commands speak HTTP and do without.
"""

import importlib
from types import ModuleType


def local(module: str) -> ModuleType:
    """Return the module of that name in `fleet`."""
    return importlib.import_module(f"fleet.{module}")

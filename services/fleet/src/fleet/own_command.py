"""The name by which a person calls this command line, so that a printed command works as it is printed."""

import os
from pathlib import Path
from typing import Final

WRAPPER: Final = Path("flotilla")
"""The script at the top of a checkout, which runs the command of its `.venv`."""


def own_command() -> str:
    """Return the command from the folder in which it runs now: `./flotilla` in a checkout, else `flotilla`."""
    return "./flotilla" if WRAPPER.is_file() and os.access(WRAPPER, os.X_OK) else "flotilla"

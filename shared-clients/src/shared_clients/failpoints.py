"""Failpoints: named lines of code at which a test may kill the process, so that a crash between two steps is a case.

Each package names its own in its `failpoints` module. Unarmed, which production always is, `reached` is one comparison.
Armed with a folder, a process that reaches a failpoint takes away the file of that name and kills itself (SIGKILL). One
file is one death, and running processes can be armed. A file that holds a service's name is for that service alone.
"""

import os
import signal
from enum import StrEnum
from pathlib import Path


class _Armed:
    """The folder of files that kill this process, and the service that the process is."""

    folder: Path | None = None
    service: str = ""


def arm(folder: Path | None, service: str) -> None:
    """Kill this process at each failpoint that a file in `folder` names; with None, at no failpoint."""
    _Armed.folder, _Armed.service = folder, service


def reached(point: StrEnum) -> None:
    """Die here if the failpoint is armed."""
    if _Armed.folder is not None:
        _die(_Armed.folder / point, _Armed.service)


def _die(file: Path, service: str) -> None:
    try:
        meant = file.read_text().strip()
        if meant in {"", service}:
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    except FileNotFoundError:  # it is for no one, or somebody else was first
        return

"""Failpoints: named lines of code at which a test can kill the process, to test a crash between two steps.

Each package names its failpoints in its `failpoints` module. Without a folder, as always in production, `reached` costs
one comparison. With a folder, a process that reaches a failpoint deletes the file of that name and kills itself
(SIGKILL). Each file kills one process, also one that already runs. A file that holds the name of a service kills only
that service.
"""

import os
import signal
from enum import StrEnum
from pathlib import Path


class _Armed:
    """The folder of files that kill this process, and the name of its service."""

    folder: Path | None = None
    service: str = ""


def arm(folder: Path | None, service: str) -> None:
    """Arm the failpoints that files in `folder` name, for this service; None disarms all."""
    _Armed.folder, _Armed.service = folder, service


def reached(point: StrEnum) -> None:
    """Kill this process if the failpoint is armed."""
    if _Armed.folder is not None:
        _kill(_Armed.folder / point, _Armed.service)


def _kill(file: Path, service: str) -> None:
    try:
        target = file.read_text().strip()
        if target in {"", service}:
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    except FileNotFoundError:  # not armed, or another process was first
        return

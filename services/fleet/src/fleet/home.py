"""The folder that a laptop's fleet keeps its state in, readable by its owner alone."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from shared_clients.errors import Permanent

MIN_KEY: Final = 16
"""Characters of a dev key that somebody chose: shorter ones are guessed."""


def open_home(folder: Path) -> Path:
    """Make the folder if it is missing, with mode 0700.

    Raises:
        Permanent: it cannot be made or written, with what to do.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        msg = f"cannot use {folder} for our state: {error.strerror}. Set FLOTILLA_HOME to a folder that you may write."
        raise Permanent(msg) from error
    return folder.resolve()


def dev_key(home: Path, given: SecretStr | None) -> str:
    """Return the API key of this laptop: the one given, or the one made here the first time.

    Raises:
        Permanent: the key given is too short, or the file cannot be written.
    """
    if given is not None:
        key = given.get_secret_value()
        if len(key) < MIN_KEY:
            raise Permanent(f"FLOTILLA_AUTH_DEV_KEY has {len(key)} characters; it has to have at least {MIN_KEY}")
        return key
    return kept_secret(home / "dev-key", lambda: f"fl-dev-{secrets.token_urlsafe(24)}")


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """Return what the file holds, or make it, with mode 0600; of two who make it at once, one's is everybody's.

    Raises:
        Permanent: the file cannot be read or written, with what to do.
    """
    try:
        if not path.exists():
            _write_once(path, make())
        secret = path.read_text().strip()
    except OSError as error:
        raise Permanent(f"cannot keep a secret in {path}: {error.strerror}. Is the disk full?") from error
    if not secret:
        raise Permanent(f"{path} is empty, and a secret was expected in it: delete it, and a fresh one is made")
    return secret


def _write_once(path: Path, text: str) -> None:
    """Let the file appear with all its text, or leave the one that appeared meanwhile."""
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - a mode
            file.write(text)
        with suppress(FileExistsError):
            path.hardlink_to(unfinished)
    finally:
        unfinished.unlink(missing_ok=True)

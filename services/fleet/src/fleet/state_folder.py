"""The folder in which a fleet on a laptop keeps its state (`FLOTILLA_HOME`); only its owner may read it."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from shared_clients.errors import Permanent

MIN_KEY_LENGTH: Final = 16
"""Characters of an API key that a person chooses; a shorter one can be guessed."""


def open_state_folder(folder: Path) -> Path:
    """Make the folder if it is missing, with mode 0700, and return its absolute path.

    Raises:
        Permanent: it cannot be made or written; the message says what to do.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        msg = f"cannot use {folder} for our state: {error.strerror}. Set FLOTILLA_HOME to a folder that you may write."
        raise Permanent(msg) from error
    return folder.resolve()


def load_dev_key(state_folder: Path, chosen_key: str | None) -> str:
    """Return the API key of this laptop: the chosen one, or the one that the first call makes and keeps.

    Raises:
        Permanent: the chosen key is too short, or the file cannot be written.
    """
    if chosen_key is None:
        return load_or_make_secret(state_folder / "dev-key", lambda: f"fl-dev-{secrets.token_urlsafe(24)}")
    if len(chosen_key) < MIN_KEY_LENGTH:
        msg = f"FLOTILLA_AUTH_DEV_KEY has {len(chosen_key)} characters; it has to have at least {MIN_KEY_LENGTH}"
        raise Permanent(msg)
    return chosen_key


def load_or_make_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the secret in a file, which is made with mode 0600 if it is missing.

    Callers that make it at the same moment all return the same secret.

    Raises:
        Permanent: the file cannot be read or written; the message says what to do.
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
    """Let the file appear with all its text, unless another caller has made it meanwhile."""
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - a mode
            file.write(text)
        with suppress(FileExistsError):
            path.hardlink_to(unfinished)
    finally:
        unfinished.unlink(missing_ok=True)

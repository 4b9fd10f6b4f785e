"""The files of secret settings: their folders in a container, and the reading of a file that a setting names."""

from pathlib import Path
from typing import Final

from shared_clients.errors import Permanent

SECRET_FOLDERS: Final = tuple(folder for folder in (Path("/run/secrets"),) if folder.is_dir())
"""The place where Docker and Kubernetes mount secrets, a file for each variable; empty where it does not exist."""


def read_named_file(setting: str, path: Path, expected: str) -> str:
    """Return the text of the file that a setting names.

    No message quotes the path: a setting often holds the secret itself where the path of its file was expected.

    Args:
        setting: its name, for messages.
        path: its value.
        expected: the content, for messages.

    Raises:
        Permanent: the file cannot be read.
    """
    try:
        return path.read_text()
    except OSError as error:
        reason = error.strerror
    except ValueError:
        reason = "it is no text"
    raise Permanent(
        f"the file that {setting} names cannot be read ({reason}); expected the path of a file with {expected}"
    )

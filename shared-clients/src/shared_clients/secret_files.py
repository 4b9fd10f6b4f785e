"""The folders in which a container finds secret settings: a file with the variable's name in lower case."""

from pathlib import Path
from typing import Final

SECRET_FOLDERS: Final = tuple(folder for folder in (Path("/run/secrets"),) if folder.is_dir())
"""Docker and Kubernetes mount them there; on a laptop there are none."""

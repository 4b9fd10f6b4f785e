"""The folders of secret settings in a container: one file for each variable, with its name in lower case."""

from pathlib import Path
from typing import Final

SECRET_FOLDERS: Final = tuple(folder for folder in (Path("/run/secrets"),) if folder.is_dir())
"""The place where Docker and Kubernetes mount secrets; empty where it does not exist."""

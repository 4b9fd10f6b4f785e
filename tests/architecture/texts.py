"""Rules about every committed text: nothing of one machine or one package source in it, and pages that stay short."""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from typing import Final

MACHINE_PATH = re.compile(r"(?<![\w.~$}*-])/(?:home|Users|root|work)/[\w.-]+|(?<![\w.])/tmp/[\w.-]+|[A-Z]:\\\\?Users")
REGISTRY = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|yarnpkg\.com|proxy\.golang\.org|repo1?\.maven"
    r"|docker\.io|ghcr\.io|quay\.io|gcr\.io|registry\.k8s\.io|mcr\.microsoft\.com)\b"
)
MOST_LINES: Final[Mapping[str, int]] = {"README.md": 150, "*/README.md": 60}
MOST_TARGETS: Final = 24


def strange_places(path: str, text: str) -> Iterator[str]:
    """Refuse paths of somebody's machine and host names of package registries: other people have others."""
    for number, line in enumerate(text.splitlines(), start=1):
        for match in (*MACHINE_PATH.finditer(line), *REGISTRY.finditer(line)):
            yield f"{path}:{number}: {match[0]!r} exists on one machine or network only"


def long_pages(path: str, text: str) -> Iterator[str]:
    """Keep front pages short."""
    lines = len(text.splitlines())
    for pattern, most in MOST_LINES.items():
        if fnmatch(path, pattern) and lines > most and not (pattern == "README.md" and "/" in path):
            yield f"{path}: {lines} lines; at most {most}"


def many_targets(path: str, text: str) -> Iterator[str]:
    """Keep the menu of `make` short."""
    targets = set(re.findall(r"^([A-Za-z0-9][\w.-]*)\s*:(?!=)", text, flags=re.MULTILINE))
    if path == "Makefile" and len(targets) > MOST_TARGETS:
        yield f"{path}: {len(targets)} targets; at most {MOST_TARGETS}: {sorted(targets)}"


RULES: Final = (strange_places, long_pages, many_targets)

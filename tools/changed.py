"""Prints the folders of unit tests that a change concerns: `make quick` runs them.

A file counts as changed if it differs from `main`; on `main` itself, if it is not committed. A change selects the unit
tests of its package, and always the tests of the architecture. `make test` shows the effect on other packages.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAIN = ("main", "origin/main")
ALWAYS = "tests/architecture"
TOOLS = "tests/tools"


def changed_files(root: Path) -> list[str]:
    """Return the paths below `root` that differ from where this branch left `main`, new ones included."""
    base = next((found for name in MAIN if (found := _git(root, "merge-base", "HEAD", name))), ["HEAD"])
    tracked = _git(root, "diff", "--name-only", *base, "--")
    return sorted({*tracked, *_git(root, "ls-files", "--others", "--exclude-standard")})


def _git(root: Path, *arguments: str) -> list[str]:
    """Return the lines that git prints; none where it fails, as for a branch that is not there."""
    ended = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)  # noqa: S603, S607 - git, with arguments of our own
    return ended.stdout.splitlines() if ended.returncode == 0 else []


def unit_tests(root: Path, files: Iterable[str]) -> list[str]:
    """Return the folders of unit tests that changed files concern, relative to `root`."""
    folders = set[str]()
    for file in files:
        folders.add(ALWAYS)
        if file.startswith(("tools/", f"{TOOLS}/")):
            folders.add(TOOLS)
        for parent in Path(file).parents:
            if (root / parent / "tests" / "unit").is_dir():
                folders.add((parent / "tests" / "unit").as_posix())
    return sorted(folder for folder in folders if (root / folder).is_dir())


def main() -> None:
    """Print the folders, separated by spaces; nothing where nothing has changed."""
    sys.stdout.write(" ".join(unit_tests(ROOT, changed_files(ROOT))) + "\n")


if __name__ == "__main__":
    main()

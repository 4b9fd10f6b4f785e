"""Checks the types of the whole repository in one run of mypy, tests included.

mypy's own command refuses it: two folders of tests may hold a `conftest.py`, and a folder with a hyphen is no package.
Here every file of a member's tests gets a module name of its own (`agent_service_tests.unit.test_domain`), so that one
run, one cache and one report are enough. All options are those of pyproject.toml.

    .venv/bin/python -m tools.check_types          everything
    .venv/bin/python -m tools.check_types PATH …   these files and folders of it, and the modules they import
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mypy.build import build
from mypy.errors import CompileError
from mypy.find_sources import create_source_list
from mypy.main import process_options
from mypy.modulefinder import BuildSource
from mypy.options import Options

ROOT = Path(__file__).parents[1]
SHARED = ("conftest.py", "tools", "tests")
"""Files and folders whose module names are their paths."""


def folders_of_members(root: Path, name: str) -> list[Path]:
    """Return the folders of that name which the members of the workspace hold."""
    found = [*root.glob(f"*/{name}"), *root.glob(f"services/*/{name}")]
    return sorted(folder for folder in found if (folder.parent / "pyproject.toml").is_file())


def all_sources(root: Path, options: Options) -> Iterator[BuildSource]:
    """Yield every Python file of the repository under a module name that no other file has."""
    named_by_path = [root / name for name in SHARED] + folders_of_members(root, "src")
    yield from _found([path for path in named_by_path if path.exists()], options)
    for folder in folders_of_members(root, "tests"):
        package = folder.parent.name.replace("-", "_")
        for source in _found([folder], options):
            assert source.path is not None, "a source that was found in a folder has a path"
            inside = Path(source.path).resolve().relative_to(folder.resolve()).with_suffix("")
            yield BuildSource(source.path, ".".join((f"{package}_tests", *inside.parts)))


def _found(paths: Sequence[Path], options: Options) -> list[BuildSource]:
    return create_source_list([os.path.relpath(path) for path in paths], options)


def below(sources: Sequence[BuildSource], chosen: Sequence[Path]) -> list[BuildSource]:
    """Keep the sources that are among the chosen files or in one of the chosen folders."""
    places = {path.resolve() for path in chosen}
    return [
        source
        for source in sources
        if source.path is not None and places & {path := Path(source.path).resolve(), *path.parents}
    ]


def check(sources: list[BuildSource], options: Options) -> list[str]:
    """Return what mypy says about these sources: a line for each error or note."""
    try:
        return build(sources, options).errors
    except CompileError as error:
        return error.messages


def main(chosen: Sequence[str]) -> int:
    """Print mypy's complaints and return the exit code: 1 if there are any, 2 if nothing was there to check."""
    _, options = process_options(["--config-file", "pyproject.toml", "-c", ""])
    sources = list(all_sources(ROOT, options))
    if chosen:
        sources = below(sources, [Path(path) for path in chosen])
    if not sources:
        sys.stderr.write(f"types: no Python file was found in {' '.join(chosen) or ROOT}; name files or folders\n")
        return 2
    lines = check(sources, options)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    if any(": error:" in line for line in lines):
        sys.stdout.write(f"types: errors in {len(sources)} source files\n")
        return 1
    sys.stdout.write(f"types: no issues in {len(sources)} source files\n")
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))

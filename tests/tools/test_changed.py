"""A change is what differs from main, committed or not, and concerns the unit tests of its package."""

import subprocess
from pathlib import Path

import pytest

from tools.changed import changed_files, unit_tests


def git(folder: Path, *words: str) -> None:
    settings = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two packages on `main`, committed."""
    for path in ("services/one/src/one.py", "services/one/tests/unit/test_one.py", "shared/tests/unit/test_shared.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "tests" / "architecture").mkdir(parents=True)
    (tmp_path / "tests" / "tools").mkdir()
    (tmp_path / ".gitignore").write_text("*.log\n")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "begin")
    return tmp_path


def test_nothing_has_changed_on_a_clean_main(repository: Path) -> None:
    assert changed_files(repository) == []
    assert unit_tests(repository, []) == []


def test_what_a_branch_has_committed_and_what_it_has_not_are_changes(repository: Path) -> None:
    git(repository, "switch", "-c", "branch")
    (repository / "services/one/src/one.py").write_text("x = 1\n")
    git(repository, "commit", "-am", "change")
    (repository / "shared/new.py").touch()
    (repository / "shared/noise.log").touch()
    (repository / "services/one/tests/unit/test_one.py").write_text("x = 1\n")
    assert changed_files(repository) == [
        "services/one/src/one.py",
        "services/one/tests/unit/test_one.py",
        "shared/new.py",
    ]


def test_a_main_that_has_gone_on_is_no_change_of_the_branch(repository: Path) -> None:
    git(repository, "switch", "-c", "branch")
    git(repository, "switch", "main")
    (repository / "shared/new.py").touch()
    git(repository, "add", ".")
    git(repository, "commit", "-m", "go on")
    git(repository, "switch", "branch")
    assert changed_files(repository) == []


@pytest.mark.parametrize(
    ("file", "folders"),
    [
        ("services/one/src/one.py", ["services/one/tests/unit", "tests/architecture"]),
        ("shared/README.md", ["shared/tests/unit", "tests/architecture"]),
        ("tools/lanes.py", ["tests/architecture", "tests/tools"]),
        ("docs/page.md", ["tests/architecture"]),
    ],
)
def test_a_change_concerns_the_unit_tests_of_its_package(repository: Path, file: str, folders: list[str]) -> None:
    assert unit_tests(repository, [file]) == folders

"""One run of mypy sees every file, tells files of one name apart, and says what is wrong in each."""

from pathlib import Path

import pytest
from mypy.main import process_options
from mypy.options import Options

from tests.architecture.sources import ROOT, workspace_sources
from tools.check_types import all_sources, below, check, main


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Our own options, from an empty folder and with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    _, options = process_options(["--config-file", str(ROOT / "pyproject.toml"), "-c", ""])
    options.cache_dir = str(tmp_path / "cache")
    options.mypy_path = [str(tmp_path)]
    options.plugins = []
    return options


def write_member(root: Path, folder: str, test: str) -> None:
    tests = root / folder / "tests" / "unit"
    tests.mkdir(parents=True)
    (root / folder / "pyproject.toml").touch()
    (tests / "test_domain.py").write_text(test)
    (tests / "conftest.py").touch()


def test_every_file_of_the_repository_is_checked_under_a_name_of_its_own() -> None:
    _, options = process_options(["--config-file", str(ROOT / "pyproject.toml"), "-c", ""])
    sources = list(all_sources(ROOT, options))
    paths = {Path(source.path or "").resolve().relative_to(ROOT).as_posix() for source in sources}
    assert {source.path for source in workspace_sources()} | {"conftest.py"} == paths
    assert len({source.module for source in sources}) == len(sources)


def test_tests_of_one_name_in_two_packages_are_both_checked(tmp_path: Path, options: Options) -> None:
    write_member(tmp_path, "services/one-door", "x: int = 'no number'\n")
    write_member(tmp_path, "services/another", "def f(x):\n    return x\n")
    found = sorted(check(list(all_sources(tmp_path, options)), options))
    assert [line.partition(" error: ")[0] for line in found] == [
        "services/another/tests/unit/test_domain.py:1:",
        "services/one-door/tests/unit/test_domain.py:1:",
    ]
    assert "[no-untyped-def]" in found[0], "as strict with tests as with what is shipped"
    assert "[assignment]" in found[1]


def test_a_file_that_is_no_python_is_named(tmp_path: Path, options: Options) -> None:
    write_member(tmp_path, "member", "def f(:\n")
    (found, *_) = check(list(all_sources(tmp_path, options)), options)
    assert found.startswith("member/tests/unit/test_domain.py:1: error: ")


def test_a_folder_stands_for_what_is_below_it(tmp_path: Path, options: Options) -> None:
    write_member(tmp_path, "services/one", "")
    write_member(tmp_path, "services/two", "")
    sources = list(all_sources(tmp_path, options))
    assert {source.module for source in below(sources, [tmp_path / "services" / "two"])} == {
        "two_tests.unit.conftest",
        "two_tests.unit.test_domain",
    }
    file = tmp_path / "services" / "one" / "tests" / "unit" / "conftest.py"
    assert [source.module for source in below(sources, [file])] == ["one_tests.unit.conftest"]


def test_a_check_of_nothing_is_no_success(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err

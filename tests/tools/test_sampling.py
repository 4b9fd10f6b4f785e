"""A sample keeps as many cases as its marker says, the same for the same seed, and nothing is left out without it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT
from tests.sampling import drawn_out

TESTS = """
import pytest

@pytest.mark.sampled(3)
@pytest.mark.parametrize("number", range(20))
def test_sampled(number): ...

@pytest.mark.parametrize("number", range(5))
def test_whole(number): ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -p tests.sampling\n")
    return tmp_path


def played(folder: Path, *options: str, seed: str = "") -> tuple[list[str], str]:
    """Return the names of the tests that ran, and all that pytest printed."""
    environment = {name: value for name, value in os.environ.items() if name != "SEED" and "PYTEST" not in name}
    environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | ({"SEED": seed} if seed else {})
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-W", "ignore", *options]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return sorted(re.findall(r"::(\S+) PASSED", run.stdout)), run.stdout


def test_without_the_option_every_case_is_played(folder: Path) -> None:
    names, _ = played(folder)
    assert len(names) == 25


def test_a_sample_keeps_so_many_cases_and_says_its_seed(folder: Path) -> None:
    names, said = played(folder, "--sample")
    assert sum(name.startswith("test_sampled") for name in names) == 3
    assert sum(name.startswith("test_whole") for name in names) == 5
    assert "17 deselected" in said
    [seed] = re.findall(r"SEED=(\d+)", said)
    assert played(folder, "--sample", seed=seed)[0] == names, "the seed that was printed plays the same"


def test_another_seed_draws_other_cases(request: pytest.FixtureRequest) -> None:
    def test() -> None: ...

    parent = request.node.parent
    cases = [pytest.Function.from_parent(parent, name=f"test_it[{number}]", callobj=test) for number in range(20)]
    for case in cases:
        case.add_marker(pytest.mark.sampled(3))
    left_out = {seed: [case.name for case in drawn_out(cases, seed)] for seed in ("1", "2")}
    assert [len(names) for names in left_out.values()] == [17, 17]
    assert left_out["1"] != left_out["2"]

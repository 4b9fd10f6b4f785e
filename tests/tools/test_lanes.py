"""Lanes run side by side, keep the words of each target together, and fail as soon as one target does."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT
from tools.lanes import Lanes, TargetResult, table

SCRIPT = """
case $1 in
  talks) for n in 1 2 3; do echo "talks $n"; sleep 0.05; done ;;
  fails) echo 'why it failed' >&2; exit 7 ;;
  silent) ;;
  cut) printf 'no newline' ;;
  first) until [ -e second ]; do sleep 0.02; done ;;
  second) touch second; until [ -e third ]; do sleep 0.02; done ;;
  third) touch third ;;
  waits) trap 'touch cleared; exit 3' INT; touch waiting; while :; do sleep 0.02; done ;;
esac
"""


class Written:
    def __init__(self) -> None:
        self.pieces = list[str]()

    def __call__(self, text: str) -> None:
        self.pieces.append(text)

    def after(self, line: str) -> str:
        """Return the piece behind the one that begins with a text."""
        [place] = [number for number, piece in enumerate(self.pieces) if piece.startswith(line)]
        return self.pieces[place + 1]


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def lanes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Written) -> Lanes:
    monkeypatch.chdir(tmp_path)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # one that is ignored stays ignored in what is started
    (tmp_path / "run.sh").write_text(SCRIPT)
    return Lanes(["bash", "run.sh"], written)


def test_what_a_target_printed_comes_whole_behind_its_end(lanes: Lanes, written: Written) -> None:
    stages = lanes.run([["talks", "silent"], ["talks2", "cut"]])
    assert [(stage.target, stage.code) for stage in stages] == [
        ("talks", 0),
        ("silent", 0),
        ("talks2", 0),
        ("cut", 0),
    ]
    assert written.after("-- talks: passed") == "talks 1\ntalks 2\ntalks 3\n"
    assert written.after("-- cut: passed") == "no newline\n"
    assert all(piece.endswith("\n") for piece in written.pieces if piece)


def test_lanes_run_side_by_side_and_a_lane_in_its_order(lanes: Lanes) -> None:
    """The first lane waits for the second, and the second for the third: one after the other would never end."""
    stages = lanes.run([["first"], ["second"], ["third"]])
    assert [stage.code for stage in stages] == [0, 0, 0]


def test_a_failure_is_told_and_stops_nothing(lanes: Lanes, written: Written) -> None:
    stages = lanes.run([["fails", "talks"]])
    assert [stage.code for stage in stages] == [7, 0]
    assert written.after("-- fails: FAILED with 7") == "why it failed\n"


def test_what_runs_is_asked_to_stop_and_nothing_new_begins(lanes: Lanes, tmp_path: Path) -> None:
    ended = list[TargetResult]()
    running = threading.Thread(target=lambda: ended.extend(lanes.run([["waits", "talks"]])))
    running.start()
    while not (tmp_path / "waiting").exists():
        running.join(0.02)
    lanes.stop()
    running.join()
    assert [(stage.target, stage.code) for stage in ended] == [("waits", 3)]
    assert (tmp_path / "cleared").exists()


def test_the_table_names_what_failed() -> None:
    told = table([TargetResult("check", 0, 59.6), TargetResult("browser", 2, 100.2)], 100.4)
    assert told.splitlines() == [
        "check       60 s  passed",
        "browser    100 s  FAILED with 2",
        "in all     100 s  failed: browser",
    ]


@pytest.mark.parametrize(("word", "code"), [("good", 0), ("good,bad", 1), ("", 2)])
def test_the_exit_code_says_whether_all_targets_passed(tmp_path: Path, word: str, code: int) -> None:
    (tmp_path / "Makefile").write_text("good:\n\t@echo fine\nbad:\n\t@echo oh && false\n")
    ended = run_module(tmp_path, *([word] if word else []))
    assert ended.wait(60) == code


def test_a_signal_stops_every_lane(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("slow:\n\t@touch begun; sleep 600\nnever:\n\t@touch never\n")
    ended = run_module(tmp_path, "slow,never")
    while not (tmp_path / "begun").exists():
        assert ended.poll() is None
    ended.send_signal(signal.SIGINT)
    assert ended.wait(60) == 1
    assert not (tmp_path / "never").exists()


def run_module(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "tools.lanes", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

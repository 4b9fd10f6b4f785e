import json

import pytest

from tests.chaos.checking import Fault, Finding, Recovery
from tests.chaos.registry import scenarios
from tests.chaos.scoreboard import Score, dump, percentile, table

RECOVERIES = [Recovery("kill -9", 0.1, 1.0), Recovery("kill -9", 0.2, 3.0), Recovery("kill -9", None, None)]
FINDINGS = [
    Finding(Fault.LOST, "x", "gone"),
    Finding(Fault.ORDER, "x", "1, 3"),
    Finding(Fault.ORDER, "y", "2, 1"),
    Finding(Fault.LEFT, "", "parked events: 1"),
]


def score(findings: list[Finding]) -> Score:
    return Score(
        scenario="F0",
        title="nothing at all",
        n=300,
        unknown=2,
        faults=3,
        findings=findings,
        recoveries=RECOVERIES,
        broker="a broker",
        seed=7,
        seconds=1.5,
        notes=["kills: 3"],
    )


def test_a_program_reads_what_was_agreed() -> None:
    [read] = json.loads(dump([score(FINDINGS)]))
    assert read == {
        "scenario": "F0",
        "n": 300,
        "lost": 1,
        "duplicated": 0,
        "order_breaks": 2,
        "stream_gaps": 0,
        "recovery_p50_s": 1.0,
        "recovery_p99_s": 3.0,
        "broker": "a broker",
        "seed": 7,
    }


def test_a_scenario_that_stranded_nothing_has_no_recovery() -> None:
    alone = Score("F0", "", 0, 0, 0, [], [], "a broker", 7, 0.0)
    [read] = json.loads(dump([alone]))
    assert (read["recovery_p50_s"], read["recovery_p99_s"]) == (None, None)
    assert "F0" in table([alone])


def test_every_zero_is_told_with_its_n_its_bound_its_broker_and_its_seed() -> None:
    _, line, note, end = table([score([])]).splitlines()
    assert line.count("0 of 300") == 4
    assert "< 1.0e-02" in line
    assert "0.10 / 0.20 s" in line
    assert "1.00 / 3.00 s" in line
    assert "  7  " in line
    assert note.strip() == "kills: 3"
    assert "a broker" in end


def test_what_is_in_no_column_is_counted_all_the_same() -> None:
    line = table([score(FINDINGS)]).splitlines()[1]
    assert "1 of 300" in line
    assert "2 of 300" in line
    assert score(FINDINGS).others == 1


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile(list(range(1, 101)), share) == expected


def test_every_scenario_is_found_by_its_name_and_is_bounded() -> None:
    found = scenarios()
    assert list(found)[:7] == ["F1", "F2", "F3", "F4", "F5", "F6", "F7"]
    assert all(0 < one.short_seconds <= 300 and 0 < one.full_seconds <= 1_000 for one in found.values())

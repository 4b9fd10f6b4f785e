"""Which failure of a delivery means which outcome."""

from datetime import timedelta

import pytest

from durable_work.inbox.outcomes import (
    MAX_ATTEMPTS,
    MAX_PAUSE,
    VERSION_PAUSE,
    Dead,
    NewerVersion,
    Outcome,
    Parked,
    ParkedRow,
    outcome_of_failure,
)
from shared_clients.errors import Permanent, Transient, Unknown

SECOND = timedelta(seconds=1)


def row(attempts: int = 2, age: timedelta = SECOND) -> ParkedRow:
    return ParkedRow("/flotilla/agent-service", "1", attempts, age)


@pytest.mark.parametrize(
    ("error", "parked_row", "expected"),
    [
        pytest.param(Permanent("never"), None, Dead("never"), id="permanent, first try"),
        pytest.param(Permanent("never"), row(), Dead("never"), id="permanent, retry"),
        pytest.param(Transient("busy"), None, Parked("busy", SECOND), id="transient, first try"),
        pytest.param(Transient("busy"), row(3), Parked("busy", 8 * SECOND), id="transient, third try"),
        pytest.param(Transient("busy"), row(MAX_ATTEMPTS), Dead("busy"), id="transient, last try"),
        pytest.param(ValueError("a bug"), None, Parked("ValueError: a bug", SECOND), id="a bug, first try"),
        pytest.param(ValueError("a bug"), row(MAX_ATTEMPTS), Dead("ValueError: a bug"), id="a bug, last try"),
        pytest.param(Unknown("lost"), None, Parked("lost", SECOND), id="a lost answer is no verdict"),
        pytest.param(NewerVersion("v2"), None, Parked("v2", VERSION_PAUSE), id="newer version, first try"),
        pytest.param(NewerVersion("v2"), row(400), Parked("v2", MAX_PAUSE), id="newer version, after many tries"),
        pytest.param(NewerVersion("v2"), row(9, timedelta(hours=25)), Dead("v2"), id="newer version, after a day"),
    ],
)
def test_failure_has_its_outcome(error: Exception, parked_row: ParkedRow | None, expected: Outcome) -> None:
    assert outcome_of_failure(error, parked_row) == expected

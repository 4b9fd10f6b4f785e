"""One epoch writes to a run at a time, and every run ends once, whoever hangs or dies; each planted fault is found.

The planted faults are in the statements: the server hears another one than was said.
"""

from collections.abc import Iterator

import pytest

from tests.models.database import Server
from tests.models.machine import budget, found, play
from tests.models.scheduler import FrozenLoop
from tests.models.workers import INSTRUMENTS, WorkersModel

EXAMPLES, RULES = 25, 30


@pytest.fixture
def model(loop: FrozenLoop, server: Server) -> Iterator[type[WorkersModel]]:
    loop.run_until_complete(server.look(INSTRUMENTS))
    yield type("Bound", (WorkersModel,), {"loop": loop, "outside": server})
    server.heard_as, server.misheard = {}, 0


def test_one_epoch_writes_at_a_time_and_every_run_ends_once(model: type[WorkersModel]) -> None:
    play(model, budget(EXAMPLES, RULES))


FENCE = "AND epoch = :epoch"
FAULTS = {
    "no fence": (FENCE, "", "wrote"),
    "end without fence": (f"{FENCE} AND status = :old_status", "AND status = :old_status", "wrote 'end'|had ended"),
    "step without fence": (f"{FENCE}\n                           AND status", "AND status", "wrote 'step'"),
    "hand back without fence": (
        f"tries = tries - :unused_tries\n    WHERE tenant = :tenant AND execution_id = :execution_id {FENCE}",
        "tries = tries - :unused_tries WHERE tenant = :tenant AND execution_id = :execution_id",
        "wrote 'hand back'",
    ),
    "claim out of turn": (
        "sessions.current_run IS NULL AND sessions.next_turn = :turn AND",
        "sessions.current_run IS NULL AND",
        "turn before it|never end",
    ),
    "next run out of turn": ("AND r.turn <= (SELECT max(turn) FROM ended)", "", "turn before it|never end"),
    "session that does not go on": (
        "UPDATE runs r SET ready_at = now() FROM next_run",
        "SELECT FROM runs r, next_run",
        "never end",
    ),
    "claim right after an outage": (
        "AND pg_postmaster_start_time() < now() - interval '3 seconds'",
        "",
        "right after an outage",
    ),
    "claim of a living worker's run": ("l.expires_at <= now()", "true", "of a living worker|still going on"),
    "claim under the same epoch": ("epoch = j.epoch + 1", "epoch = j.epoch + CAST(j.epoch = 0 AS int)", "wrote"),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found(model: type[WorkersModel], server: Server, fault: str) -> None:
    said, heard, why = FAULTS[fault]
    server.heard_as = {said: heard}
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found(model, budget(EXAMPLES, RULES, prove=True)))
    assert server.misheard, "no statement holds what the fault is planted in"

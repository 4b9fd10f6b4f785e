"""The catalogues of states and failures: complete, and in agreement with each other."""

from shared_models.requests import FAILURES, STATES, TERMINAL, FailureReason, Status


def test_every_failure_reason_has_a_status_and_a_notice() -> None:
    assert set(FAILURES) == set(FailureReason)
    assert all(kind.notice.endswith(".") for kind in FAILURES.values())


def test_every_status_of_a_failure_is_terminal_and_has_a_notice_of_its_own() -> None:
    assert {kind.status for kind in FAILURES.values()} == TERMINAL - {Status.COMPLETED}
    assert {status for status, state in STATES.items() if state.notice} == TERMINAL - {Status.COMPLETED}

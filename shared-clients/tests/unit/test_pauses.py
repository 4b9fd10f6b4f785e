"""Pauses between tries: they grow, they are jittered by at most a half, and they are never longer than their cap."""

from hypothesis import given
from hypothesis import strategies as st

from shared_clients.bus.dispatching import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, pause_after
from shared_clients.loops import Backoff

ATTEMPTS = st.integers(1, 10**6)


@given(ATTEMPTS)
def test_pause_of_a_lane_lies_between_a_half_and_the_whole_of_its_bound(attempts: int) -> None:
    bound = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 60))
    assert bound / 2 <= pause_after(attempts) <= bound


@given(first=st.floats(1e-3, 10.0), cap=st.floats(1e-3, 100.0), crashes=ATTEMPTS)
def test_pause_of_a_loop_lies_between_a_half_and_the_whole_of_its_bound(first: float, cap: float, crashes: int) -> None:
    bound = min(cap, first * 2.0 ** min(crashes - 1, 60))
    assert bound / 2 <= Backoff(first=first, cap=cap).pause(crashes) <= bound


@given(st.integers(1, 20))
def test_bound_never_falls_with_more_failures(attempts: int) -> None:
    assert pause_after(attempts) <= 2 * pause_after(attempts + 1)

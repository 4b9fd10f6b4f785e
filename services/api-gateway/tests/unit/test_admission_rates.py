from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.admission.rates import MAX_BUCKETS, LeakyBuckets, RatePolicy

TEN = RatePolicy("caller", 10, 10)


def add_all(buckets: LeakyBuckets, key: str, now: float, replicas: int = 1) -> int:
    """Add as many requests as are admitted, and return their number."""
    count = 0
    while buckets.remaining(key, now, replicas).requests:
        buckets.add_request(key, now, replicas)
        count += 1
    return count


def test_whole_quota_may_be_used_at_once_and_is_then_restored_evenly() -> None:
    buckets = LeakyBuckets(TEN)
    assert add_all(buckets, "a", 0) == 10
    assert buckets.remaining("a", 0, 1).seconds == pytest.approx(1)
    assert add_all(buckets, "a", 0.9) == 0
    assert add_all(buckets, "a", 3.5) == 3
    assert add_all(buckets, "a", 1000) == 10


@given(st.lists(st.floats(0, 30), min_size=1, max_size=200))
def test_no_window_admits_more_than_the_quota_and_the_restored_part(moments: list[float]) -> None:
    buckets = LeakyBuckets(TEN)
    admitted = []
    for now in sorted(moments):
        if buckets.remaining("a", now, 1).requests:
            buckets.add_request("a", now, 1)
            admitted.append(now)
    for first, _ in pairwise(admitted):
        within = [moment for moment in admitted if first <= moment <= first + TEN.window]
        assert len(within) <= 2 * TEN.quota


def test_one_key_does_not_use_the_quota_of_another() -> None:
    buckets = LeakyBuckets(TEN)
    add_all(buckets, "a", 0)
    assert buckets.remaining("b", 0, 1).requests == 10


def test_each_of_several_gateways_admits_its_share_of_the_quota() -> None:
    assert add_all(LeakyBuckets(TEN), "a", 0, replicas=3) == 3
    assert add_all(LeakyBuckets(TEN), "a", 0, replicas=50) == 1


def test_requests_of_other_gateways_fill_the_bucket() -> None:
    buckets = LeakyBuckets(TEN)
    for _ in range(2):
        buckets.add_request("a", 0, 1)
    buckets.add_reported_total("a", reported=2, total=8, now=0)
    assert buckets.remaining("a", 0, 1).requests == 2
    buckets.add_reported_total("a", reported=0, total=8, now=0)
    assert buckets.remaining("a", 0, 1).requests == 2
    buckets.add_reported_total("a", reported=0, total=9, now=0)
    assert buckets.remaining("a", 0, 1).requests == 1


def test_count_that_started_again_at_zero_holds_the_other_gateways_requests_since_then() -> None:
    buckets = LeakyBuckets(TEN)
    buckets.add_request("a", 0, 1)
    buckets.add_reported_total("a", reported=1, total=7, now=0)
    buckets.add_request("a", 10, 1)
    buckets.add_reported_total("a", reported=1, total=3, now=10)
    assert buckets.remaining("a", 10, 1).requests == 7


def test_other_gateways_can_fill_a_bucket_but_not_beyond_the_quota() -> None:
    buckets = LeakyBuckets(TEN)
    buckets.add_reported_total("a", reported=0, total=1_000_000, now=0)
    assert buckets.remaining("a", 0, 1).requests == 0
    assert buckets.remaining("a", 10, 1).requests == 10


def test_number_of_buckets_has_a_bound() -> None:
    buckets = LeakyBuckets(TEN)
    for number in range(MAX_BUCKETS + 10):
        buckets.add_request(str(number), 0, 1)
    assert len(buckets._buckets) == MAX_BUCKETS
    assert buckets.remaining("0", 0, 1).requests == 10
    assert buckets.remaining(str(MAX_BUCKETS), 0, 1).requests == 9

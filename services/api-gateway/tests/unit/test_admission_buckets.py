from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.admission import AdmissionLimits
from api_gateway.admission.buckets import MOST_KEYS, Buckets, Policy
from api_gateway.admission.limits import WINDOW_SECONDS
from api_gateway.admission.places import Place, Places, Stage
from shared_clients.errors import Permanent

TEN = Policy("caller", 10, 10)


def taken(buckets: Buckets, key: str, now: float, share: int = 1) -> int:
    """Take as many as there are."""
    count = 0
    while buckets.room(key, now, share).left:
        buckets.take(key, now, share)
        count += 1
    return count


def test_the_whole_quota_may_come_at_once_and_then_grows_back_evenly() -> None:
    buckets = Buckets(TEN)
    assert taken(buckets, "a", 0) == 10
    assert buckets.room("a", 0, 1).seconds == pytest.approx(1)
    assert taken(buckets, "a", 0.9) == 0
    assert taken(buckets, "a", 3.5) == 3
    assert taken(buckets, "a", 1000) == 10


@given(st.lists(st.floats(0, 30), min_size=1, max_size=200))
def test_nobody_gets_more_than_the_quota_and_what_grew_back(moments: list[float]) -> None:
    buckets = Buckets(TEN)
    let_in = []
    for now in sorted(moments):
        if buckets.room("a", now, 1).left:
            buckets.take("a", now, 1)
            let_in.append(now)
    for first, _ in pairwise(let_in):
        within = [moment for moment in let_in if first <= moment <= first + TEN.window]
        assert len(within) <= 2 * TEN.quota


def test_one_key_does_not_take_from_another() -> None:
    buckets = Buckets(TEN)
    taken(buckets, "a", 0)
    assert buckets.room("b", 0, 1).left == 10


def test_a_part_of_the_quota_is_let_in_by_each_of_several() -> None:
    assert taken(Buckets(TEN), "a", 0, share=3) == 3
    assert taken(Buckets(TEN), "a", 0, share=50) == 1


def test_what_others_let_in_fills_the_bucket_here() -> None:
    buckets = Buckets(TEN)
    for _ in range(2):
        buckets.take("a", 0, 1)
    buckets.hear("a", told=2, total=8, now=0)
    assert buckets.room("a", 0, 1).left == 2
    buckets.hear("a", told=0, total=8, now=0)
    assert buckets.room("a", 0, 1).left == 2
    buckets.hear("a", told=0, total=9, now=0)
    assert buckets.room("a", 0, 1).left == 1


def test_a_count_that_began_anew_is_taken_as_what_others_did_since() -> None:
    buckets = Buckets(TEN)
    buckets.take("a", 0, 1)
    buckets.hear("a", told=1, total=7, now=0)
    buckets.take("a", 10, 1)
    buckets.hear("a", told=1, total=3, now=10)
    assert buckets.room("a", 10, 1).left == 7


def test_others_can_fill_a_bucket_but_not_more_than_that() -> None:
    buckets = Buckets(TEN)
    buckets.hear("a", told=0, total=1_000_000, now=0)
    assert buckets.room("a", 0, 1).left == 0
    assert buckets.room("a", 10, 1).left == 10


def test_a_table_of_buckets_does_not_grow_for_ever() -> None:
    buckets = Buckets(TEN)
    for number in range(MOST_KEYS + 10):
        buckets.take(str(number), 0, 1)
    assert len(buckets._buckets) == MOST_KEYS
    assert buckets.room("0", 0, 1).left == 10
    assert buckets.room(str(MOST_KEYS), 0, 1).left == 9


def test_nobody_on_a_laptop_meets_the_defaults() -> None:
    limits = AdmissionLimits()
    assert limits.caller / WINDOW_SECONDS >= 100
    assert limits.open >= 1000
    assert limits.caller <= limits.tenant <= limits.platform


@pytest.mark.parametrize(("given", "said"), [({"callers": 1}, "'callers'"), ({"caller": 0}, "caller=0")])
def test_a_limit_that_makes_no_sense_is_refused(given: dict[str, int], said: str) -> None:
    with pytest.raises(Permanent, match=said):
        AdmissionLimits.of(given)


def test_a_given_limit_replaces_the_default_alone() -> None:
    assert AdmissionLimits.of({"caller": 7}) == AdmissionLimits(caller=7)


def test_a_place_is_counted_once_whatever_becomes_of_it() -> None:
    places = Places(AdmissionLimits(open=1, tenant_open=1))
    one = Place(places, Stage.RECEIVING)
    places.move(one, Stage.OPEN, "acme")
    places.move(one, Stage.OPEN, "acme")
    assert (places.taken(Stage.RECEIVING), places.taken(Stage.OPEN)) == (0, 1)
    assert places.full(Stage.OPEN)
    assert places.tenant_full("acme")
    assert not places.tenant_full("other")
    one.leave()
    one.leave()
    assert places.taken(Stage.OPEN) == 0
    assert not places.tenant_full("acme")
    assert places._open_of == {}


def test_a_tenants_part_is_divided_by_the_gateways() -> None:
    places = Places(AdmissionLimits(tenant_open=4, replicas=2))
    for _ in range(2):
        places.move(Place(places, Stage.IN_FLIGHT), Stage.OPEN, "acme")
    assert places.tenant_full("acme")

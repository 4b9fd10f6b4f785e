"""Knative's retry table, whole, and the schedule of retries."""

from datetime import timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_eventing.domain.retrying import SubscriberResponse, Verdict, judge, pause_before
from mock_eventing.domain.triggers import DeliverySpec

type Policy = Literal["linear", "exponential"]

RETRYABLE_4XX = {404, 408, 409, 429}
FAILED = SubscriberResponse(500)

jitters = st.floats(0, 1)
retries = st.integers(1, 1000)
durations = st.timedeltas(timedelta(milliseconds=1), timedelta(days=1))


def delivery(policy: Policy = "exponential", **given_: timedelta) -> DeliverySpec:
    return DeliverySpec.model_validate({"backoff_policy": policy, "backoff_max": timedelta(days=30), **given_})


@pytest.mark.parametrize("status", range(100, 600))
def test_every_status_means_what_the_contract_says(status: int) -> None:
    expected = {1: Verdict.FAILED, 2: Verdict.DELIVERED, 3: Verdict.FAILED, 4: Verdict.FAILED, 5: Verdict.RETRY}[
        status // 100
    ]
    assert judge(status) is (Verdict.RETRY if status in RETRYABLE_4XX else expected)


def test_no_answer_and_a_status_beyond_the_table_are_tried_again() -> None:
    assert judge(None) is Verdict.RETRY
    assert judge(999) is Verdict.RETRY


@given(retries, durations, jitters)
def test_linear_waits_grow_by_one_delay_each(retry: int, delay: timedelta, jitter: float) -> None:
    bound = min(delay.total_seconds() * retry, 30 * 86_400)
    pause = pause_before(retry, delivery("linear", backoff_delay=delay), FAILED, jitter)
    assert bound * 0.5 <= pause <= bound


@given(st.integers(1, 60), durations, jitters)
def test_exponential_waits_double(retry: int, delay: timedelta, jitter: float) -> None:
    bound = min(delay.total_seconds() * 2.0 ** (retry - 1), 30 * 86_400)
    pause = pause_before(retry, delivery(backoff_delay=delay), FAILED, jitter)
    assert bound * 0.5 <= pause <= bound


@given(retries, durations, durations, jitters, st.sampled_from(["linear", "exponential"]))
def test_no_wait_is_longer_than_the_cap(
    retry: int, delay: timedelta, cap: timedelta, jitter: float, policy: Policy
) -> None:
    schedule = delivery(policy, backoff_delay=delay, backoff_max=cap)
    assert 0 < pause_before(retry, schedule, FAILED, jitter) <= cap.total_seconds()


@given(retries, jitters, jitters)
def test_a_later_retry_is_never_bound_to_come_sooner(retry: int, jitter: float, other: float) -> None:
    first, second = (pause_before(n, delivery(), FAILED, jitter) for n in (retry, retry + 1))
    assert first <= second
    assert 0.5 <= pause_before(retry, delivery(), FAILED, other) / pause_before(retry, delivery(), FAILED, 1) <= 1


@given(st.floats(0, 1e9), durations, jitters, st.sampled_from([429, 503]))
def test_a_wait_that_was_asked_for_is_kept_up_to_its_cap(
    asked: float, cap: timedelta, jitter: float, status: int
) -> None:
    schedule = delivery(retry_after_max=cap)
    usual = pause_before(1, schedule, SubscriberResponse(status), jitter)
    assert pause_before(1, schedule, SubscriberResponse(status, retry_after=asked), jitter) == max(
        usual, min(asked, cap.total_seconds())
    )


@pytest.mark.parametrize("status", [404, 408, 409, 500, 502, None])
def test_no_other_answer_can_ask_for_a_wait(status: int | None) -> None:
    assert pause_before(1, delivery(), SubscriberResponse(status, retry_after=9.0), 0.0) == 0.1


def test_a_trigger_may_ignore_what_is_asked_for() -> None:
    deaf = delivery(retry_after_max=timedelta(0))
    assert pause_before(1, deaf, SubscriberResponse(429, retry_after=9.0), 1.0) == 0.2


def test_the_default_schedule_is_knative_s() -> None:
    default = DeliverySpec()
    assert default.retry == 10
    waits = [pause_before(retry, default, FAILED, 1.0) for retry in range(1, 11)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]

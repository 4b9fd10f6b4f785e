import pytest

from api_gateway.admission.concurrency import ConcurrencyLimiter, Stage
from api_gateway.admission.limits import AdmissionLimits
from shared_models.problems import Problem, Problems


def test_request_is_counted_once_in_whichever_stage_it_is() -> None:
    limiter = ConcurrencyLimiter(AdmissionLimits(open=2, tenant_open=2))
    slot = limiter.acquire(Stage.RECEIVING)
    for _ in range(2):
        limiter.keep_open(slot, "acme")
    assert (limiter.in_progress(Stage.RECEIVING), limiter.in_progress(Stage.OPEN)) == (0, 1)
    limiter.body_received(slot)
    assert (limiter.in_progress(Stage.IN_FLIGHT), limiter.in_progress(Stage.OPEN)) == (0, 1)
    for _ in range(2):
        limiter.release(slot)
    assert limiter.in_progress(Stage.OPEN) == 0
    assert limiter._open_by_tenant == {}


def test_released_slot_makes_room_for_another_request_of_its_tenant() -> None:
    limiter = ConcurrencyLimiter(AdmissionLimits(open=1, tenant_open=1))
    first, second, other = (limiter.acquire(Stage.IN_FLIGHT) for _ in range(3))
    limiter.keep_open(first, "acme")
    with pytest.raises(Problem) as tenant_refused:
        limiter.keep_open(second, "acme")
    with pytest.raises(Problem) as process_refused:
        limiter.keep_open(other, "other")
    assert tenant_refused.value.kind is Problems.TOO_MANY_OPEN.value
    assert process_refused.value.kind is Problems.OVERLOADED.value
    limiter.release(first)
    limiter.keep_open(second, "acme")
    assert limiter.in_progress(Stage.OPEN) == 1


def test_each_gateway_admits_its_share_of_a_tenants_open_requests() -> None:
    limiter = ConcurrencyLimiter(AdmissionLimits(tenant_open=4, replicas=2))
    for _ in range(2):
        limiter.keep_open(limiter.acquire(Stage.IN_FLIGHT), "acme")
    with pytest.raises(Problem, match="already has 2 streams and waiting calls"):
        limiter.keep_open(limiter.acquire(Stage.IN_FLIGHT), "acme")

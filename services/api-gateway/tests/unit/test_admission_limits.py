import pytest

from api_gateway.admission.limits import WINDOW_SECONDS, AdmissionLimits
from shared_clients.errors import Permanent


def test_defaults_are_far_above_a_laptops_traffic() -> None:
    limits = AdmissionLimits()
    assert limits.caller / WINDOW_SECONDS >= 100
    assert limits.open >= 1000
    assert limits.caller <= limits.tenant <= limits.platform


@pytest.mark.parametrize(("setting", "named"), [({"callers": 1}, "'callers'"), ({"caller": 0}, "caller=0")])
def test_unknown_or_too_small_limit_is_refused_by_name(setting: dict[str, int], named: str) -> None:
    with pytest.raises(Permanent, match=named):
        AdmissionLimits.from_setting(setting)


def test_limit_in_the_setting_replaces_that_default_alone() -> None:
    assert AdmissionLimits.from_setting({"caller": 7}) == AdmissionLimits(caller=7)

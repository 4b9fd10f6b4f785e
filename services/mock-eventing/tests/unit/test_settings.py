"""An ingress that anybody could use does not start."""

import pytest

from mock_eventing.settings import Settings
from shared_clients.errors import Permanent


def settings(**given: str) -> Settings:
    return Settings.model_validate({"triggers": "t.yaml", **given})


@pytest.mark.parametrize(
    "given",
    [
        {"mode": "dev"},
        {"events_secret": "0123456789abcdef", "host": "0.0.0.0"},
        {"mode": "dev", "events_secret": "0123456789abcdef", "host": "0.0.0.0"},
    ],
)
def test_what_is_safe_starts(given: dict[str, str]) -> None:
    settings(**given).refuse_if_unfit()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "FLOTILLA_EVENTS_SECRET is not set"),
        ({"events_secret": ""}, "FLOTILLA_EVENTS_SECRET is not set"),
        ({"events_secret": "short"}, "FLOTILLA_EVENTS_SECRET is too short"),
        ({"mode": "dev", "events_secret": "short"}, "FLOTILLA_EVENTS_SECRET is too short"),
        ({"mode": "dev", "host": "0.0.0.0"}, "FLOTILLA_HOST: without FLOTILLA_EVENTS_SECRET"),
    ],
)
def test_what_is_not_is_refused_by_name(given: dict[str, str], named: str) -> None:
    with pytest.raises(Permanent, match=named):
        settings(**given).refuse_if_unfit()


def test_the_secret_is_not_shown() -> None:
    assert "0123456789abcdef" not in repr(settings(events_secret="0123456789abcdef"))

"""What a mode forbids is refused at the start, by the setting's name."""

import pytest

from shared_clients.errors import Permanent
from shared_clients.settings import Mode, ProcessSettings


def settings(mode: Mode, **changes: str) -> ProcessSettings:
    stores = {"database_url": "postgresql://db/x", "bus_url": "kafka://k:9092", "redis_url": "redis://r"}
    return ProcessSettings.model_validate({**stores, "mode": mode, **changes})


@pytest.mark.parametrize(
    ("mode", "changes"),
    [
        (Mode.PRODUCTION, {"host": "0.0.0.0"}),
        (Mode.DEV, {"bus_url": "memory://", "redis_url": "memory://"}),
        (Mode.DEV, {"host": "::1"}),
    ],
)
def test_what_a_mode_allows_starts(mode: Mode, changes: dict[str, str]) -> None:
    settings(mode, **changes).refuse_if_unfit()


@pytest.mark.parametrize(
    ("mode", "changes", "named"),
    [
        (Mode.PRODUCTION, {"bus_url": "memory://"}, "FLOTILLA_BUS_URL"),
        (Mode.PRODUCTION, {"redis_url": "memory://"}, "FLOTILLA_REDIS_URL"),
        (Mode.DEV, {"host": "0.0.0.0"}, "FLOTILLA_HOST"),
        (Mode.DEV, {"host": "192.0.2.7"}, "FLOTILLA_HOST"),
    ],
)
def test_what_a_mode_forbids_is_refused_by_name(mode: Mode, changes: dict[str, str], named: str) -> None:
    with pytest.raises(Permanent, match=named):
        settings(mode, **changes).refuse_if_unfit()


def test_mode_is_production_unless_somebody_says_dev() -> None:
    stores = {"database_url": "postgresql://db/x", "bus_url": "kafka://k:9092", "redis_url": "redis://r"}
    assert ProcessSettings.model_validate(stores).mode is Mode.PRODUCTION

"""A forbidden setting is refused at the start, and named."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from service_process.settings import Mode, ProcessSettings
from shared_clients.errors import Permanent


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
    settings(mode, **changes).refuse_if_unfit(container_marks=())


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
        settings(mode, **changes).refuse_if_unfit(container_marks=())


def test_dev_listens_elsewhere_than_on_loopback_only_in_a_container(tmp_path: Path) -> None:
    here, mark = settings(Mode.DEV, host="0.0.0.0"), tmp_path / "mark"
    with pytest.raises(Permanent, match="outside of a container"):
        here.refuse_if_unfit([mark])
    mark.touch()
    here.refuse_if_unfit([mark])


def test_a_container_lifts_nothing_that_production_refuses(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="FLOTILLA_BUS_URL"):
        settings(Mode.PRODUCTION, bus_url="memory://").refuse_if_unfit([tmp_path])


def test_a_secret_is_read_from_a_file_named_like_its_variable(tmp_path: Path) -> None:
    (tmp_path / "flotilla_database_url").write_text("postgresql://db/from-a-file\n")
    given = ProcessSettings(_secrets_dir=tmp_path, bus_url="kafka://k:9092", redis_url=SecretStr("redis://r"))
    assert given.database_url.get_secret_value() == "postgresql://db/from-a-file"


def test_mode_is_production_by_default() -> None:
    stores = {"database_url": "postgresql://db/x", "bus_url": "kafka://k:9092", "redis_url": "redis://r"}
    assert ProcessSettings.model_validate(stores).mode is Mode.PRODUCTION

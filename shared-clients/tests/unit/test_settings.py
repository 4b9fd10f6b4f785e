"""A forbidden setting is refused at the start, and named."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings

from service_process.production import refuse_readable_file
from service_process.settings import EventSettings, Mode, ProcessSettings, ProductionSettings
from shared_clients.errors import Permanent

SECRET = "kq3ZpT8vXw1LrB6n"
FIT = {
    "database_url": f"postgresql://db:{SECRET}@db/x?ssl=verify-full",
    "bus_url": "https://broker/ns/default",
    "redis_url": f"rediss://:{SECRET}@r",
}
"""Stores that production accepts."""


def settings(mode: Mode, **changes: str) -> ProcessSettings:
    return ProcessSettings.model_validate({**FIT, "mode": mode, **changes})


@pytest.mark.parametrize(
    ("mode", "changes"),
    [
        (Mode.PRODUCTION, {"host": "0.0.0.0"}),
        (Mode.PRODUCTION, {"bus_url": "kafka://k:9092", "trusted_stores": "bus"}),
        (Mode.PRODUCTION, {"bus_url": "kafka://k:9092?security_protocol=SASL_SSL&sasl_mechanism=PLAIN"}),
        (Mode.PRODUCTION, {"database_url": f"postgresql://db:{SECRET}@db/x", "trusted_stores": "redis, database"}),
        (Mode.PRODUCTION, {"redis_url": f"redis://:{SECRET}@r", "trusted_stores": "bus,redis"}),
        (Mode.PRODUCTION, {"database_url": "postgresql://db@/x?host=/run/postgres"}),
        (Mode.DEV, {"bus_url": "memory://", "redis_url": "memory://"}),
        (Mode.DEV, {"host": "::1"}),
    ],
)
def test_what_a_mode_allows_starts(mode: Mode, changes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_TRUSTED_STORES", changes.get("trusted_stores", ""))
    settings(mode, **changes).refuse_if_unfit(container_marks=())


@pytest.mark.parametrize(
    ("mode", "changes", "named"),
    [
        (Mode.PRODUCTION, {"bus_url": "memory://"}, "FLOTILLA_BUS_URL"),
        (Mode.PRODUCTION, {"redis_url": "memory://"}, "FLOTILLA_REDIS_URL"),
        (Mode.PRODUCTION, {"bus_url": "MEMORY://", "trusted_stores": "bus"}, "FLOTILLA_BUS_URL"),
        (Mode.PRODUCTION, {"redis_url": " Memory://", "trusted_stores": "redis"}, "FLOTILLA_REDIS_URL"),
        (Mode.PRODUCTION, {"bus_url": "kafka://k:9092"}, "FLOTILLA_BUS_URL names a store without encryption"),
        (Mode.PRODUCTION, {"bus_url": "kafka://k:9092?security_protocol=SASL_PLAINTEXT"}, "FLOTILLA_BUS_URL names a"),
        (Mode.PRODUCTION, {"bus_url": "http://broker/ns/default"}, "FLOTILLA_BUS_URL names a store without"),
        (Mode.PRODUCTION, {"database_url": f"postgresql://db:{SECRET}@/x?host=db"}, "FLOTILLA_DATABASE_URL names a"),
        (Mode.PRODUCTION, {"database_url": f"postgresql:///x?host=/s,db&password={SECRET}"}, "FLOTILLA_DATABASE_URL n"),
        (Mode.PRODUCTION, {"redis_url": f"redis://:{SECRET}@r"}, "FLOTILLA_REDIS_URL names a store without"),
        (Mode.PRODUCTION, {"database_url": f"postgresql://db:{SECRET}@db/x"}, "FLOTILLA_DATABASE_URL names a store"),
        (Mode.PRODUCTION, {"database_url": f"postgresql://db:{SECRET}@db/x?ssl=prefer"}, "FLOTILLA_DATABASE_URL names"),
        (Mode.PRODUCTION, {"database_url": "postgresql://db@db/x?ssl=require"}, "FLOTILLA_DATABASE_URL has no pass"),
        (Mode.PRODUCTION, {"database_url": "postgresql://db:short@db/x?ssl=require"}, "FLOTILLA_DATABASE_URL has no"),
        (Mode.PRODUCTION, {"redis_url": "rediss://r"}, "FLOTILLA_REDIS_URL has no password or a weak one"),
        (Mode.PRODUCTION, {"redis_url": f"rediss://:{'a' * 40}@r"}, "FLOTILLA_REDIS_URL has no password or a weak"),
        (Mode.PRODUCTION, {"failpoints": "/tmp"}, "FLOTILLA_FAILPOINTS"),
        (Mode.DEV, {"host": "0.0.0.0"}, "FLOTILLA_HOST"),
        (Mode.DEV, {"host": "192.0.2.7"}, "FLOTILLA_HOST"),
    ],
)
def test_what_a_mode_forbids_is_refused_by_name(
    mode: Mode, changes: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOTILLA_TRUSTED_STORES", changes.get("trusted_stores", ""))
    with pytest.raises(Permanent, match=named) as refused:
        settings(mode, **changes).refuse_if_unfit(container_marks=())
    assert SECRET not in str(refused.value)


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


@pytest.mark.parametrize("subclass", [ProcessSettings, EventSettings, ProductionSettings])
def test_unreadable_setting_is_named_without_its_value(subclass: type[BaseSettings]) -> None:
    given = {**FIT, "port": f"{SECRET}-port", "events_oidc": f"{SECRET}-oidc", "redis_url": [SECRET]}
    given |= {"trusted_stores": f"{SECRET}-stores"}
    with pytest.raises(ValidationError) as refused:
        subclass.model_validate(given)
    assert SECRET not in str(refused.value)


def test_file_that_other_users_may_read_is_refused_as_a_key(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.touch()
    for mode in (0o604, 0o602, 0o644):
        key.chmod(mode)
        with pytest.raises(Permanent, match=r"FLOTILLA_KEY .* is open to other users"):
            refuse_readable_file("FLOTILLA_KEY", key)
    for mode in (0o600, 0o440):
        key.chmod(mode)
        refuse_readable_file("FLOTILLA_KEY", key)

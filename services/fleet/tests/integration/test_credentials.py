"""What a fleet of containers knows of each other: made once, kept, and split by reader."""

from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from fleet.credentials import write_credentials
from shared_clients.errors import Permanent
from shared_clients.identity import load_private, load_trusted
from shared_models.catalog import EVENTS

CONSUMERS = {consumer for event in EVENTS.values() for consumer in event.consumers}


def write(folder: Path, chosen: str | None = None) -> dict[str, str]:
    key = None if chosen is None else SecretStr(chosen)
    write_credentials(folder, database="postgres/flotilla", redis="valkey", chosen_key=key)
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_each_reader_finds_what_it_needs_and_nobody_else_the_gateways_keys(tmp_path: Path) -> None:
    files = write(tmp_path)
    assert set(files) == {
        "postgres/password",
        "redis/password",
        "redis/redis.conf",
        "broker/flotilla_events_secret",
        "broker/triggers.yaml",
        "services/flotilla_database_url",
        "services/flotilla_redis_url",
        "services/flotilla_events_secret",
        "services/trusted-keys.json",
        "gateway/flotilla_database_url",
        "gateway/flotilla_redis_url",
        "gateway/flotilla_auth_dev_key",
        "gateway/gateway-key.pem",
    }
    assert (
        files["services/flotilla_database_url"]
        == f"postgresql://flotilla:{files['postgres/password']}@postgres/flotilla"
    )
    assert files["services/flotilla_redis_url"] == f"redis://:{files['redis/password']}@valkey/0"
    assert f"requirepass {files['redis/password']}\n" in files["redis/redis.conf"]
    assert files["services/flotilla_events_secret"] == files["broker/flotilla_events_secret"]
    assert len(files["gateway/flotilla_auth_dev_key"]) >= 32
    load_private(files["gateway/gateway-key.pem"])
    load_trusted(files["services/trusted-keys.json"])


def test_every_consumer_has_a_trigger_with_its_own_address(tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all(write(tmp_path)["broker/triggers.yaml"]))
    addresses = {document["metadata"]["name"]: document["spec"]["subscriber"]["uri"] for document in documents}
    assert addresses == {consumer: f"http://{consumer}:8080/events" for consumer in CONSUMERS}


def test_a_second_time_changes_nothing_for_stores_keep_the_passwords_they_were_made_with(tmp_path: Path) -> None:
    assert write(tmp_path) == write(tmp_path)


def test_two_fleets_have_nothing_in_common(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert {name for name in first if first[name] == second[name]} == {"broker/triggers.yaml"}


def test_whoever_reads_a_secret_under_another_user_may(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("postgres/password", "redis/redis.conf"):
        assert (tmp_path / name).stat().st_mode & 0o004, name
    for name in ("gateway/gateway-key.pem", "broker/flotilla_events_secret"):
        assert not (tmp_path / name).stat().st_mode & 0o077, name


def test_a_chosen_key_takes_the_place_of_the_one_that_was_made(tmp_path: Path) -> None:
    write(tmp_path)
    assert write(tmp_path, "a-key-that-somebody-chose")["gateway/flotilla_auth_dev_key"] == "a-key-that-somebody-chose"
    assert write(tmp_path)["gateway/flotilla_auth_dev_key"] == "a-key-that-somebody-chose"
    with pytest.raises(Permanent, match="FLOTILLA_AUTH_DEV_KEY has to have at least 16"):
        write(tmp_path, "short")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=r"cannot write credentials below .*nowhere"):
        write(tmp_path / "nowhere")

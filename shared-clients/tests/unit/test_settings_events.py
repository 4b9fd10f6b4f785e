"""How a process and its broker know each other is said, or it does not start."""

import json
from pathlib import Path

import pytest

from service_process.settings import EventSettings, Mode, ProcessSettings, load_settings
from shared_clients.errors import Permanent, WrongSettings

OIDC = {
    "issuer": "https://kubernetes.default.svc",
    "jwks_url": "https://kubernetes.default.svc/openid/v1/jwks",
    "senders": ["system:serviceaccount:flotilla:*"],
}


def settings(mode: Mode, bus_url: str = "http://broker/ns/default") -> ProcessSettings:
    stores = {"database_url": "postgresql://db/x", "bus_url": bus_url, "redis_url": "redis://r"}
    return ProcessSettings.model_validate({**stores, "mode": mode})


@pytest.mark.parametrize("bus_url", ["memory://", "kafka://k:9092"])
def test_other_buses_need_no_handshake(bus_url: str) -> None:
    assert settings(Mode.PRODUCTION, bus_url).broker_authentication("agent-service") is None


async def test_a_laptop_shares_a_secret_with_its_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_EVENTS_SECRET", "0123456789abcdef")
    broker_authentication = settings(Mode.DEV).broker_authentication("agent-service")
    assert broker_authentication is not None
    assert broker_authentication.token() == "0123456789abcdef"
    await broker_authentication.verify_sender("Bearer 0123456789abcdef")


@pytest.mark.parametrize("secret", ["", "hunter2", "0123456789abcde"])
def test_without_a_secret_of_some_length_a_laptop_does_not_start(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_EVENTS_SECRET", secret)
    wrong = f"FLOTILLA_EVENTS_SECRET has {len(secret)} characters; it has to have at least 16"
    with pytest.raises(Permanent, match=wrong) as no:
        settings(Mode.DEV).broker_authentication("agent-service")
    assert not secret or secret not in str(no.value)


@pytest.mark.parametrize("bus_url", ["http://broker", "https://broker/ns/default"])
def test_production_does_not_start_without_an_issuer(bus_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_EVENTS_SECRET", "0123456789abcdef")
    with pytest.raises(Permanent, match="FLOTILLA_EVENTS_OIDC has to say who may send events"):
        settings(Mode.PRODUCTION, bus_url).broker_authentication("agent-service")


def test_production_shows_the_token_of_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("a.b.c\n")
    monkeypatch.setenv("FLOTILLA_EVENTS_OIDC", json.dumps({**OIDC, "token_file": str(tmp_path / "token")}))
    broker_authentication = settings(Mode.PRODUCTION).broker_authentication("agent-service")
    assert broker_authentication is not None
    assert broker_authentication.token() == "a.b.c"


def test_an_error_names_a_known_member_and_no_unknown_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_EVENTS_OIDC", json.dumps({**OIDC, "issuer": "http://x", "sk-9vQ2xT7m": "y"}))
    with pytest.raises(WrongSettings, match=r"FLOTILLA_EVENTS_OIDC \(issuer\): ") as wrong:
        load_settings(EventSettings)
    assert "sk-9vQ2xT7m" not in str(wrong.value)
    assert "FLOTILLA_EVENTS_OIDC: Extra inputs" in str(wrong.value)

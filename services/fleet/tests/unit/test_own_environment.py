"""A process of the fleet gets the variables of its own settings, and no secret of another process."""

from pathlib import Path

import pytest

from fleet.broker import VARIABLES
from fleet.processes import SETTINGS, Stores, _commands
from fleet.settings import FleetSettings, variables_of
from mock_eventing.settings import Settings as BrokerSettings

SECRETS = {
    "FLOTILLA_AUTH_DEV_KEY": {"api-gateway"},
    "FLOTILLA_AUTH_PRIVATE_KEY": {"api-gateway"},
    "FLOTILLA_AUDIT_KEY": set[str](),
    "OPENAI_API_KEY": {"agent-service"},
    "AWS_SECRET_ACCESS_KEY": set[str](),
    "FLOTILLA_EVENTS_SECRET": {"request-manager", "agent-service", "mock-eventing"},
    "FLOTILLA_DATABASE_URL": {"request-manager", "agent-service", "api-gateway"},
    "FLOTILLA_REDIS_URL": {"request-manager", "agent-service", "api-gateway"},
}


def test_process_gets_only_its_own_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "a-secret-of-this-test")
    stores = Stores("postgresql://db/x", "http://127.0.0.1:21000", "redis://r")
    commands = _commands(FleetSettings(), tmp_path, "dev-key-of-this-test", stores, replicas={})
    services = {command.name.rpartition("-")[0]: command.environment for command in commands}
    assert set(services) == {*SETTINGS, "mock-eventing"}
    holders = {name: {service for service, given in services.items() if name in given} for name in SECRETS}
    assert holders == SECRETS
    assert all("PATH" in given for given in services.values())


def test_variables_of_the_broker_are_those_of_its_settings() -> None:
    assert variables_of(BrokerSettings) == VARIABLES

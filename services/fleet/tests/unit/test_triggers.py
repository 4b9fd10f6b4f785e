"""Triggers say the same as the catalogue, in documents that a broker takes."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from fleet.broker import OWN_BROKER, broker_command, events_secret, own_broker_url
from mock_eventing.domain.triggers import Trigger, parse_triggers
from shared_clients.errors import Permanent
from shared_models.catalog import EVENTS
from shared_models.triggers import dump_triggers, triggers

CONSUMERS = {consumer for event in EVENTS.values() for consumer in event.consumers}


def read() -> dict[str, Trigger]:
    documents = dump_triggers(triggers(lambda consumer: f"http://{consumer}:8080/events"))
    (found,) = parse_triggers("triggers.yaml", documents).values()
    return {trigger.name.removeprefix("default/"): trigger for trigger in found}


def test_every_consumer_has_one_trigger_that_leads_to_its_door() -> None:
    assert {name: trigger.uri for name, trigger in read().items()} == {
        consumer: f"http://{consumer}:8080/events" for consumer in CONSUMERS
    }


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_is_wanted_by_its_consumers_alone_in_every_version(name: str) -> None:
    newer = name.rpartition(".v")[0] + ".v2"
    for type_ in (name, newer):
        wanting = {consumer for consumer, trigger in read().items() if trigger.matches({"type": type_})}
        assert wanting == EVENTS[name].consumers


def test_what_nobody_reads_is_wanted_by_nobody() -> None:
    assert not any(trigger.matches({"type": "flotilla.request.created-elsewhere.v1"}) for trigger in read().values())


def test_a_try_waits_longer_than_a_service_holds_a_request() -> None:
    for trigger in read().values():
        assert trigger.delivery.timeout.total_seconds() > 5
        assert trigger.delivery.retry >= 10


def test_a_fleet_starts_a_broker_only_where_it_is_told_to() -> None:
    assert own_broker_url(None) is None
    assert own_broker_url("kafka://k:9092") is None
    assert (own_broker_url(OWN_BROKER) or "").startswith("http://127.0.0.1:")
    with pytest.raises(Permanent, match="has to be http:// alone"):
        own_broker_url("http://broker:80")


def test_the_broker_is_told_the_first_port_of_each_service_and_the_secret(tmp_path: Path) -> None:
    secret = events_secret(tmp_path)
    assert events_secret(tmp_path) == secret, "a fleet that is started again knows its broker"
    assert len(SecretStr(secret["FLOTILLA_EVENTS_SECRET"])) >= 16
    ports = {consumer: [7000 + n, 1] for n, consumer in enumerate(sorted(CONSUMERS))}
    command = broker_command("http://127.0.0.1:7999", tmp_path, ports, secret)
    assert command.environment == {
        **secret,
        "FLOTILLA_PORT": "7999",
        "FLOTILLA_TRIGGERS": str(tmp_path / "triggers.yaml"),
    }
    (found,) = parse_triggers("triggers.yaml", (tmp_path / "triggers.yaml").read_text()).values()
    assert {trigger.uri for trigger in found} == {f"http://127.0.0.1:{chosen[0]}/events" for chosen in ports.values()}

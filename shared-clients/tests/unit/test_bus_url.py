"""One URL chooses the transport; a wrong one says what is accepted and repeats no secret."""

import pytest

from shared_clients.bus import BrokerAuthentication, ensure_topics, open_bus
from shared_clients.bus.http import HttpBus
from shared_clients.bus.kafka import KafkaBus
from shared_clients.bus.kafka_cluster import KafkaCluster
from shared_clients.bus.memory import MemoryBus


async def test_memory_url_opens_a_bus_in_this_process() -> None:
    async with open_bus("memory://") as bus:
        assert isinstance(bus, MemoryBus)


async def test_kafka_url_opens_without_waiting_for_a_broker() -> None:
    async with open_bus("kafka://127.0.0.1:1") as bus:
        assert isinstance(bus, KafkaBus)


async def verify_sender(authorization: str) -> None:
    del authorization


BROKER_AUTHENTICATION = BrokerAuthentication(lambda: "hunter2", verify_sender)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://broker/ns/default", "https://[::1]:8443/", "http://b-1.c"]
)
async def test_http_url_opens_without_waiting_for_a_broker(url: str) -> None:
    async with open_bus(url, BROKER_AUTHENTICATION) as bus:
        assert isinstance(bus, HttpBus)


@pytest.mark.parametrize("url", ["memory://", "http://127.0.0.1:1"])
async def test_only_kafka_needs_topics_made(url: str) -> None:
    await ensure_topics(url, frozenset({"flotilla.requests"}))


async def test_broker_without_authentication_is_refused() -> None:
    with pytest.raises(ValueError, match="broker_authentication has to be given"):
        async with open_bus("http://127.0.0.1:1"):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://user:hunter2@h:1",
        "http://hunter2@h",
        "http://h:p",
        "http://h:1?token=hunter2",
        "http://h:1/#hunter2",
        "http://h h",
    ],
)
async def test_http_url_with_more_than_an_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"http://host:port\[/path\]") as refused:
        async with open_bus(url, BROKER_AUTHENTICATION):
            pass
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["kafka://a:9092", "kafka://a:9092/", "kafka://10.0.0.1:9092,[::1]:9093,b-1.c:1"])
def test_kafka_url_names_one_or_more_brokers(url: str) -> None:
    assert ",".join(KafkaCluster.parse(url).servers) == url.removeprefix("kafka://").removesuffix("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory",
        "memory://x",
        "amqp://user:hunter2@h:1",
        "kafka://",
        "kafka://hunter2",
        "kafka://user:hunter2@h:1",
        "kafka://h:1/hunter2",
        "kafka://h:1?password=hunter2",
        "kafka://h:1?sasl_password=hunter2",
        "kafka://h:1?security_protocol=hunter2",
        "kafka://h:1?security_protocol=SASL_SSL&sasl_mechanism=PLAIN&sasl_username=hunter2",
        "kafka://h:1?security_protocol=SASL_SSL&sasl_mechanism=OAUTHBEARER&sasl_username=hunter2",
        "kafka://h:1?security_protocol=SSL&sasl_mechanism=PLAIN&sasl_username=a&sasl_password_file=hunter2",
        "kafka://h:1?security_protocol=SSL&ssl_cert_file=hunter2",
        "kafka://h:1?ssl_ca_file=hunter2",
        "kafka://h:1?hunter2",
        "kafka://h:1,",
        "kafka://h:p",
    ],
)
async def test_any_other_url_is_refused_and_the_accepted_forms_are_named(url: str) -> None:
    with pytest.raises(ValueError, match=r"kafka://host:port\[,host:port\]") as refused:
        async with open_bus(url, BROKER_AUTHENTICATION):
            pass
    assert "hunter2" not in str(refused.value)

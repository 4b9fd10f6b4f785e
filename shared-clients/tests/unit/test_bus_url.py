"""One URL chooses the transport; a wrong one says what is accepted and repeats no secret."""

import pytest

from shared_clients.bus import ensure_topics, open_bus
from shared_clients.bus.kafka import KafkaBus, servers_of
from shared_clients.bus.memory import MemoryBus


async def test_memory_url_opens_a_bus_in_this_process() -> None:
    async with open_bus("memory://") as bus:
        assert isinstance(bus, MemoryBus)


async def test_kafka_url_opens_without_waiting_for_a_broker() -> None:
    async with open_bus("kafka://127.0.0.1:1") as bus:
        assert isinstance(bus, KafkaBus)


async def test_memory_bus_needs_no_topics_made() -> None:
    await ensure_topics("memory://", frozenset({"flotilla.requests"}))


@pytest.mark.parametrize("url", ["kafka://a:9092", "kafka://a:9092/", "kafka://10.0.0.1:9092,[::1]:9093,b-1.c:1"])
def test_kafka_url_names_one_or_more_brokers(url: str) -> None:
    assert ",".join(servers_of(url)) == url.removeprefix("kafka://").removesuffix("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory",
        "memory://x",
        "http://broker",
        "amqp://user:hunter2@h:1",
        "kafka://",
        "kafka://hunter2",
        "kafka://user:hunter2@h:1",
        "kafka://h:1/hunter2",
        "kafka://h:1?password=hunter2",
        "kafka://h:1,",
        "kafka://h:p",
    ],
)
async def test_any_other_url_is_refused_naming_what_is_accepted(url: str) -> None:
    with pytest.raises(ValueError, match=r"kafka://host:port\[,host:port\]") as refused:
        async with open_bus(url):
            pass
    assert "hunter2" not in str(refused.value)

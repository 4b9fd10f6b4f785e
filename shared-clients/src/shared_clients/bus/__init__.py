"""The bus, which carries events between services; one URL chooses its transport."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shared_clients.bus.http import BrokerAuthentication, HttpBus
from shared_clients.bus.kafka import KafkaBus, create_topics, list_missing_topics
from shared_clients.bus.memory import MemoryBus
from shared_clients.bus.port import Bus
from shared_clients.errors import WrongAddress

__all__ = ["BrokerAuthentication", "ensure_topics", "missing_topics", "open_bus"]


@asynccontextmanager
async def open_bus(url: str, broker_authentication: BrokerAuthentication | None = None) -> AsyncGenerator[Bus]:
    """Open a bus, and close it at the end of the context; published messages are safe then.

    Args:
        url: `memory://` for services in one process, `kafka://host:port[,host:port]` with the parameters of
            `kafka_cluster.KafkaSecurity`, or `http://host:port[/path]` of a Knative broker's ingress.
        broker_authentication: how this process and a broker over HTTP authenticate each other.

    Raises:
        WrongAddress: the URL is of another form, or a broker comes without `broker_authentication`.
    """
    bus = _bus(url, broker_authentication)
    try:
        yield bus
    finally:
        await bus.close()


async def ensure_topics(url: str, topics: frozenset[str], *, partitions: int = 12) -> None:
    """Create the topics that do not exist yet, where the transport has topics.

    Args:
        url: as for `open_bus`.
        topics: their names.
        partitions: of each new topic; at most this many members of a group can share it.

    Raises:
        Transient: Kafka does not answer now.
        Permanent: Kafka refuses a topic.
    """
    if url.startswith("kafka://"):
        await create_topics(url, topics, partitions=partitions)


async def missing_topics(url: str, topics: frozenset[str]) -> frozenset[str]:
    """Return the topics that do not exist yet, where the transport has topics; see `ensure_topics`."""
    return await list_missing_topics(url, topics) if url.startswith("kafka://") else frozenset()


def _bus(url: str, broker_authentication: BrokerAuthentication | None) -> MemoryBus | KafkaBus | HttpBus:
    if url == "memory://":
        return MemoryBus()
    if url.startswith("kafka://"):
        return KafkaBus(url)
    if url.startswith(("http://", "https://")):
        if broker_authentication is None:
            raise WrongAddress("the bus URL is that of a broker over HTTP, so broker_authentication has to be given")
        return HttpBus(url, broker_authentication)
    scheme = url.partition("://")[0][:20] if "://" in url else "none"
    accepted = "memory://, kafka://host:port[,host:port] or http://host:port[/path]"
    raise WrongAddress(f"the bus URL has the scheme {scheme}; it has to be {accepted}")

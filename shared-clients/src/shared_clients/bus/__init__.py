"""How facts travel between services; which transport carries them is one URL."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shared_clients.bus.http import Handshake, HttpBus
from shared_clients.bus.kafka import KafkaBus, create_topics
from shared_clients.bus.memory import MemoryBus
from shared_clients.bus.port import Bus

__all__ = ["Handshake", "ensure_topics", "open_bus"]


@asynccontextmanager
async def open_bus(url: str, handshake: Handshake | None = None) -> AsyncGenerator[Bus]:
    """Open a bus, and close it in the end: what was published before is safe then.

    Args:
        url: `memory://` for services in one process, `kafka://host:port[,host:port]`, or `http://host:port[/path]` of a
            Knative broker's ingress.
        handshake: how the process and that broker know each other.

    Raises:
        ValueError: the URL names something else, or there is no handshake for a broker.
    """
    bus = _bus(url, handshake)
    try:
        yield bus
    finally:
        await bus.close()


async def ensure_topics(url: str, topics: frozenset[str], *, partitions: int = 12) -> None:
    """Make the topics that do not exist yet, where the transport has topics.

    Args:
        url: as for `open_bus`.
        topics: their names.
        partitions: of each topic that is made; so many members of a group can share it.

    Raises:
        Transient: the broker cannot be asked now.
        Permanent: it refuses.
    """
    if url.startswith("kafka://"):
        await create_topics(url, topics, partitions=partitions)


def _bus(url: str, handshake: Handshake | None) -> MemoryBus | KafkaBus | HttpBus:
    if url == "memory://":
        return MemoryBus()
    if url.startswith("kafka://"):
        return KafkaBus(url)
    if url.startswith(("http://", "https://")):
        if handshake is None:
            raise ValueError("the bus is a broker, and nothing says how it and this process know each other")
        return HttpBus(url, handshake)
    scheme = url.partition("://")[0][:20] if "://" in url else "none"
    accepted = "memory://, kafka://host:port[,host:port] or http://host:port[/path]"
    raise ValueError(f"the bus URL has the scheme {scheme}; it has to be {accepted}")

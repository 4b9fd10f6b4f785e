"""How facts travel between services; which transport carries them is one URL."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shared_clients.bus.kafka import KafkaBus, create_topics
from shared_clients.bus.memory import MemoryBus
from shared_clients.bus.port import Bus

__all__ = ["ensure_topics", "open_bus"]


@asynccontextmanager
async def open_bus(url: str) -> AsyncGenerator[Bus]:
    """Open a bus, and close it in the end: what was published before is safe then.

    Args:
        url: `memory://` for services in one process, or `kafka://host:port[,host:port]`.

    Raises:
        ValueError: the URL names something else.
    """
    bus = _bus(url)
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
        ValueError: the URL names something else.
    """
    if isinstance(_bus(url), KafkaBus):
        await create_topics(url, topics, partitions=partitions)


def _bus(url: str) -> MemoryBus | KafkaBus:
    if url == "memory://":
        return MemoryBus()
    if url.startswith("kafka://"):
        return KafkaBus(url)
    scheme = url.partition("://")[0][:20] if "://" in url else "none"
    raise ValueError(f"the bus URL has the scheme {scheme}; it has to be memory:// or kafka://host:port[,host:port]")

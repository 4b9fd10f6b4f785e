"""The bus inside one process: no broker and no copy, and still nothing acknowledged that a crash can lose.

There is nowhere to keep a message, so `publish` returns only when every group has handled it. Until then the
publisher's outbox row stays, which makes this transport as safe as the database. A group counts from its first
subscription on: whoever starts several services subscribes all of them before the first outbox is swept.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from shared_clients.bus.codec import check_size
from shared_clients.bus.lanes import Delivery, Lanes, Member, finish
from shared_clients.bus.port import Handler, Message
from shared_clients.errors import Transient

IN_FLIGHT: Final = 1000
"""Messages of one topic that wait or are being handled; further publishers wait."""


@dataclass(eq=False, slots=True)
class _Topic:
    """A group whose last member has left is still owed what is published meanwhile."""

    groups: dict[str, Lanes] = field(default_factory=dict)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_FLIGHT))


class MemoryBus:
    """A bus for all services in one process.

    Args:
        patience: seconds that `publish` waits for all groups before it raises `Transient`.
    """

    def __init__(self, patience: float = 5.0) -> None:
        self._patience = patience
        self._topics: dict[str, _Topic] = {}
        self._waited_for: set[asyncio.Future[None]] = set()
        self._closed = False

    async def publish(self, message: Message) -> None:
        check_size(message)
        topic = self._topics.get(message.topic)
        if topic is None:
            raise Transient(f"a message for {message.topic} is kept: nobody in this process has subscribed to it yet")
        offered: list[tuple[Lanes, Delivery]] = []
        try:
            async with asyncio.timeout(self._patience), topic.room:
                if self._closed:
                    raise Transient(f"a message for {message.topic} is kept: the bus is closed")
                offered.extend((lanes, lanes.offer(message)) for lanes in topic.groups.values())
                await self._all_handled([delivery.handled for _, delivery in offered])
        except TimeoutError:
            slow = f"not handled by every subscriber within {self._patience} s"
            raise Transient(f"a message for {message.topic} is kept: {slow}") from None
        finally:
            for lanes, delivery in offered:
                lanes.withdraw(delivery)

    @asynccontextmanager
    async def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> AsyncGenerator[None]:
        joined: list[tuple[Lanes, Member]] = []
        for name in topics:
            topic = self._topics.setdefault(name, _Topic())
            lanes = topic.groups.setdefault(group, Lanes())
            joined.append((lanes, lanes.join(handler)))
        try:
            yield
        finally:
            for lanes, member in joined:
                lanes.leave(member)
            await finish(*(member for _, member in joined))

    async def close(self) -> None:
        self._closed = True
        if self._waited_for:
            await asyncio.wait(self._waited_for)

    async def _all_handled(self, futures: list[asyncio.Future[None]]) -> None:
        self._waited_for.update(futures)
        try:
            await asyncio.gather(*futures)
        finally:
            self._waited_for.difference_update(futures)

"""The bus inside one process: without a broker, and still no crash can lose an acknowledged message.

This bus stores no message, so `publish` returns only when every group has handled it. Until then the outbox row of the
publisher stays, which makes this transport as safe as the database. A group exists from its first subscription on: a
program that starts several services has to subscribe all of them before the first outbox is swept.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from shared_clients.bus.codec import check_size
from shared_clients.bus.dispatching import Delivery, Dispatcher, Member, finish
from shared_clients.bus.port import Handler, Message
from shared_clients.errors import Transient

MAX_UNHANDLED: Final = 1000
"""Messages of one topic that are published and not handled; further publishers wait."""


@dataclass(eq=False, slots=True)
class _Topic:
    """The groups of a topic; a group stays when its last member leaves, and still gets the messages."""

    groups: dict[str, Dispatcher] = field(default_factory=dict)
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_UNHANDLED))


class MemoryBus:
    """A bus for all services in one process.

    Args:
        publish_seconds: how long `publish` waits for all groups before it raises `Transient`.
    """

    def __init__(self, publish_seconds: float = 5.0) -> None:
        self._publish_seconds = publish_seconds
        self._topics: dict[str, _Topic] = {}
        self._unhandled: set[asyncio.Future[None]] = set()
        self._closed = False

    async def publish(self, message: Message) -> None:
        check_size(message)
        topic = self._topics.get(message.topic)
        if topic is None:
            raise Transient(f"a message for {message.topic} was not published: no subscription to it is open yet")
        queued: list[tuple[Dispatcher, Delivery]] = []
        try:
            async with asyncio.timeout(self._publish_seconds), topic.slots:
                if self._closed:
                    raise Transient(f"a message for {message.topic} was not published: the bus is closed")
                queued.extend((dispatcher, dispatcher.enqueue(message)) for dispatcher in topic.groups.values())
                await self._wait_until_handled([delivery.handled for _, delivery in queued])
        except TimeoutError:
            slow = f"not handled by every subscriber within {self._publish_seconds} s"
            raise Transient(f"a message for {message.topic} was not published in time: {slow}") from None
        finally:
            for dispatcher, delivery in queued:
                dispatcher.remove(delivery)

    @asynccontextmanager
    async def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> AsyncGenerator[None]:
        joined: list[tuple[Dispatcher, Member]] = []
        for name in topics:
            topic = self._topics.setdefault(name, _Topic())
            dispatcher = topic.groups.setdefault(group, Dispatcher())
            joined.append((dispatcher, dispatcher.join(handler)))
        try:
            yield
        finally:
            for dispatcher, member in joined:
                dispatcher.leave(member)
            await finish(*(member for _, member in joined))

    async def close(self) -> None:
        self._closed = True
        if self._unhandled:
            await asyncio.wait(self._unhandled)

    async def _wait_until_handled(self, futures: list[asyncio.Future[None]]) -> None:
        self._unhandled.update(futures)
        try:
            await asyncio.gather(*futures)
        finally:
            self._unhandled.difference_update(futures)

"""A bus for tests of what stands before it: it keeps what it is given, or fails as it is told."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shared_clients.bus.port import Handler, Message
from shared_clients.errors import Permanent, Transient


class ScriptedBus:
    """A bus that keeps what it is given, or fails as it is told, one word for each publish."""

    def __init__(self) -> None:
        self.safe: list[Message] = []
        self.faults: list[type[Transient | Permanent]] = []
        self.tries = 0

    async def publish(self, message: Message) -> None:
        self.tries += 1
        if self.faults:
            raise self.faults.pop(0)("as scripted")
        self.safe.append(message)

    @asynccontextmanager
    async def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> AsyncGenerator[None]:
        del group, topics, handler
        yield

    async def close(self) -> None:
        return

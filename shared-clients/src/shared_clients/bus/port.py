"""The bus port: how facts travel between services, whatever carries them.

`memory`, `kafka` and `http` implement it, and one contract suite runs on all of them. The port promises
at-least-once and nothing about order: the outbox stands before it, the inbox behind it.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """One CloudEvent on its way, not interpreted.

    Attributes:
        topic: where it is published.
        key: the partition key.
        attributes: context attributes as strings, without a transport's prefix.
        data: the event's data, exactly as its producer wrote it.
        origin: where a transport found it (`kafka:<topic>/<partition>@<offset>`); names it when it carries no id.
    """

    topic: str
    key: str
    attributes: Mapping[str, str]
    data: bytes
    origin: str = field(default="", compare=False)


Handler = Callable[[Message], Awaitable[None]]
"""Returning acknowledges the message; raising has it delivered again after a pause."""


class Bus(Protocol):
    async def publish(self, message: Message) -> None:
        """Hand a message over; return only when a crash on either side can no longer lose it.

        Raises:
            Transient: it is not known to be safe; publish it again.
            Permanent: this message can never be published (too large).
        """

    def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> AbstractAsyncContextManager[None]:
        """Take part in a group's consumption while the context is open.

        Each message goes to one member of each group. Leaving stops fetching, lets handlers that have begun finish,
        acknowledges what they handled, and gives the rest back.
        """

    async def close(self) -> None:
        """Publish what is in flight and let go of all connections."""

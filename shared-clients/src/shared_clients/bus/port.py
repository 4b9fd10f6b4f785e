"""The bus port: how events travel between services, with any transport.

`memory`, `kafka` and `http` implement it, and one contract suite runs on all of them. The port promises at-least-once
delivery and no order: the outbox publishes to it, and the inbox receives from it.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """One CloudEvent as the bus carries it, not interpreted.

    Attributes:
        topic: to which it is published.
        key: the partition key.
        attributes: context attributes as strings, without a transport's prefix.
        data: the event's data, exactly as its producer wrote it.
        origin: the position from which a transport read the message (`kafka:<topic>/<partition>@<offset>`); identifies
            a message that has no id.
    """

    topic: str
    key: str
    attributes: Mapping[str, str]
    data: bytes
    origin: str = field(default="", compare=False)


Handler = Callable[[Message], Awaitable[None]]
"""A return acknowledges the message; after an exception it is delivered again, with a pause."""


class Bus(Protocol):
    """A transport of events."""

    async def publish(self, message: Message) -> None:
        """Publish a message; return only when no crash on either side can lose it.

        Raises:
            Transient: the message may be lost; publish it again.
            Permanent: this message can never be published (too large).
        """

    def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> AbstractAsyncContextManager[None]:
        """Handle messages as a member of a group while the context is open.

        Each message goes to one member of each group. At the end of the context, no more messages are fetched, handlers
        that have begun finish and their messages are acknowledged, and all other messages go to other members.
        """

    async def close(self) -> None:
        """Finish the publishing in progress, and close all connections."""

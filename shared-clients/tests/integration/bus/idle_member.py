"""A member of a consumer group in a process of its own, that begins every message and finishes none, to be killed."""

import asyncio
import sys

from shared_clients.bus.kafka import KafkaBus
from shared_clients.bus.port import Message


async def begin_and_hang(message: Message) -> None:
    sys.stderr.write(f"begun {message.data.decode()}\n")
    await asyncio.Event().wait()


async def consume(url: str, group: str, topic: str) -> None:
    async with KafkaBus(url, session_seconds=1.5).subscribe(group, frozenset({topic}), begin_and_hang):
        await asyncio.Event().wait()


asyncio.run(consume(*sys.argv[1:]))

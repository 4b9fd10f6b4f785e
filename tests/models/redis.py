"""A Redis with the real one's semantics (fakeredis): a gate before each round trip, and one before its answer.

A lost round trip has carried out none, some or all of its commands. Data can be lost as a Redis loses it that was
killed: all of it, or what came last.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from fakeredis import FakeAsyncRedis, FakeServer
from redis import asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared_clients.redis import Command, CommandBatcher, Redis
from tests.models.scheduler import Fate, Scheduler

type Heard = Callable[["Store", Command], Command]
AS_SAID: Final[Heard] = lambda _, command: command  # noqa: E731 - the default of a seam


class Store:
    """What all processes talk to.

    Attributes:
        heard: returns the command that is carried out: the one that was sent, or one with a planted fault.
        losses: how often data was lost.
    """

    def __init__(self, scheduler: Scheduler, heard: Heard = AS_SAID) -> None:
        self.scheduler = scheduler
        self.heard = heard
        self.losses = 0
        self.cuts = 0
        self.server = FakeServer()
        self._own = FakeAsyncRedis(server=self.server, protocol=2)

    def connect(self) -> Redis:
        """Return one process's connections; run its pipe."""
        commands, blocking = (cast("aioredis.Redis", Client(self)) for _ in range(2))
        return Redis(commands, blocking, CommandBatcher(commands))

    async def entries(self, key: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return cast("list[tuple[bytes, dict[bytes, bytes]]]", await self._own.xrange(key))

    async def lose(self, key: str, last: int | None) -> None:
        """Lose the last entries of a log, as a Redis that was killed does, or (None) everything."""
        there = await self.entries(key)
        if not there:
            return
        self.losses += 1
        kept = [] if last is None else there[: max(0, len(there) - last)]
        await self._own.delete(key)
        for name, fields in kept:
            await self._own.xadd(key, cast("Any", fields), id=name)

    async def close(self) -> None:
        await self._own.aclose()


class Client:
    """What `exchange` knows as redis-py's client."""

    def __init__(self, store: Store) -> None:
        self.connection_pool = Pool(store)


class Pool:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._inner = FakeAsyncRedis(server=store.server, protocol=2).connection_pool

    async def get_connection(self) -> "Connection":
        inner = await self._inner.get_connection()  # type: ignore[no-untyped-call]  # redis-py has it untyped
        return Connection(self._store, inner)

    async def release(self, connection: "Connection") -> None:
        if connection.owed:
            await connection.inner.disconnect()
        await self._inner.release(connection.inner)


class Connection:
    """One round trip."""

    def __init__(self, store: Store, inner: Any) -> None:
        self.inner = inner
        self.owed = 0
        self._store = store
        self._answering = False

    def pack_commands(self, commands: Sequence[Command]) -> Sequence[Command]:
        return commands

    async def send_packed_command(self, commands: Sequence[Command]) -> None:
        store = self._store
        fate = await store.scheduler.gate(" ".join(str(command[0]) for command in commands))
        carried_out = commands
        if fate is Fate.LOST:
            store.cuts += 1
            carried_out = commands[: store.cuts % (len(commands) + 1)]
        self.owed = len(commands)
        packed = self.inner.pack_commands([store.heard(store, command) for command in carried_out])
        await self.inner.send_packed_command(packed)
        if fate is Fate.LOST:
            raise RedisConnectionError("lost")

    async def read_response(self) -> object:
        try:
            answer = await self.inner.read_response()
        except ResponseError as error:
            answer = error
        if not self._answering:
            self._answering = True
            if await self._store.scheduler.gate("answer of redis") is Fate.LOST:
                raise RedisConnectionError("no answer")
        self.owed -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer

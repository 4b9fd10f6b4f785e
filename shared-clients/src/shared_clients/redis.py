"""Redis: the live log of what people see, and nothing that must not be lost.

Everything built on it goes on without it: commands give up after half a second and are not retried here, since their
callers know whether a second try is safe. A reader that blocks has its own connection without that limit, because
redis-py would otherwise end every long read with an error. What many tasks send at once shares a round trip, which
costs ten times as much as a command in it. `memory://` is a Redis inside this process.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Final, cast
from urllib.parse import urlsplit

import structlog
from fakeredis import FakeAsyncRedis, FakeServer
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from shared_clients.loops import Tasks

log = structlog.get_logger()

COMMAND_SECONDS: Final = 0.5
CONNECTIONS: Final = 16
"""For commands; whoever finds all of them busy for `COMMAND_SECONDS` is told that Redis does not answer."""

MOST_WAITING: Final = 16_384
"""Senders that may wait for their turn; who comes then is told that Redis does not answer, as it does not."""
COMMANDS_TOGETHER: Final = 512
"""In one round trip, or a few more."""
_CLOSED = "this process has closed its connections to Redis"

type Command = tuple[str | int | bytes, ...]

REDIS_ERRORS: Final = (RedisError, OSError, TimeoutError)
"""All that a call may raise when Redis is down, silent, full or confused."""


class Outage:
    """Says once that something outside went away and once that it is back, however many loops and calls notice."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since: float | None = None

    def failed(self, error: Exception) -> None:
        if self._since is None:
            self._since = monotonic()
            log.warning("outage_began", of=self._what, error=f"{type(error).__name__}: {error}"[:200])

    def answered(self) -> None:
        if self._since is not None:
            log.info("outage_ended", of=self._what, seconds=round(monotonic() - self._since, 1))
            self._since = None


class Pipe:
    """Sends together what all tasks of this process gather while the last round trip lasts."""

    def __init__(self, client: aioredis.Redis) -> None:
        self._client = client
        self._waiting: deque[tuple[Sequence[Command], asyncio.Future[list[object]]]] = deque()
        self._sending: list[tuple[Sequence[Command], asyncio.Future[list[object]]]] = []
        self._some = asyncio.Event()
        self._closed = False

    async def send(self, *commands: Command) -> list[object]:
        """Return the raw reply, or the error that Redis gave, for each command.

        Raises:
            RedisError, OSError, TimeoutError: there was no answer; any of the commands may have been carried out.
        """
        if self._closed:
            raise RedisConnectionError(_CLOSED)
        if len(self._waiting) >= MOST_WAITING:
            raise RedisConnectionError(f"{MOST_WAITING} senders wait for Redis")
        answer: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, answer))
        self._some.set()
        return await answer

    async def run(self) -> None:
        """Send for all, for ever."""
        while True:
            await self._some.wait()
            if self._waiting:
                await self._send_some()
            else:
                self._some.clear()

    def close(self) -> None:
        """Fail those who wait, and those who come."""
        self._closed = True
        self._sending = [*self._waiting]
        self._fail(RedisConnectionError(_CLOSED))

    async def _send_some(self) -> None:
        room = COMMANDS_TOGETHER
        while self._waiting and room > 0:
            self._sending.append(self._waiting.popleft())
            room -= len(self._sending[-1][0])
        try:
            replies = iter(await exchange(self._client, [one for commands, _ in self._sending for one in commands]))
            for commands, answer in self._sending:
                mine = list(islice(replies, len(commands)))
                if not answer.done():
                    answer.set_result(mine)
        except REDIS_ERRORS as error:
            self._fail(error)
        finally:
            self._fail(RedisConnectionError(_CLOSED))

    def _fail(self, error: Exception) -> None:
        """Tell those who have no answer yet."""
        for _, answer in self._sending:
            if not answer.done():
                answer.set_exception(error)
        self._sending = []


async def exchange(client: aioredis.Redis, commands: Sequence[Command]) -> list[object]:
    """Send commands over one of a client's connections; return the raw reply, or the error Redis gave, for each."""
    pool = client.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py has it untyped
    try:
        await connection.send_packed_command(connection.pack_commands(commands))
        return [await _reply(connection) for _ in commands]
    finally:
        await pool.release(connection)


async def _reply(connection: aioredis.Connection) -> object:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


@dataclass(frozen=True, slots=True)
class Redis:
    """The connections of one process.

    Attributes:
        commands: answers or fails within `COMMAND_SECONDS`.
        blocking: for one reader that waits inside Redis; the caller bounds the wait.
        together: sends commands with those of other tasks.
        reads: whether reading works, said once per change.
        writes: whether writing works (a full Redis still reads).
    """

    commands: aioredis.Redis
    blocking: aioredis.Redis
    together: Pipe
    reads: Outage = field(default_factory=lambda: Outage("redis reads"))
    writes: Outage = field(default_factory=lambda: Outage("redis writes"))


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """Make the connections of this process; none is opened before it is used, so a Redis that is down stops nobody.

    Args:
        url: `redis://`, `rediss://` or `unix://` as redis-py reads them, or `memory://`: a Redis of this process's own,
            gone with the context.

    Raises:
        ValueError: the address is of another kind, or cannot be read.
    """
    commands, blocking = _in_process() if urlsplit(url).scheme == "memory" else _outside(url)
    together = Pipe(commands)
    try:
        async with Tasks() as tasks:
            tasks.start("redis_pipe", together.run)
            yield Redis(commands, blocking, together)
    finally:
        together.close()
        await commands.aclose()
        await blocking.aclose()


def _in_process() -> tuple[aioredis.Redis, aioredis.Redis]:
    server = FakeServer()
    return (
        cast("aioredis.Redis", FakeAsyncRedis(server=server, protocol=2)),
        cast("aioredis.Redis", FakeAsyncRedis(server=server, protocol=2)),
    )


def _outside(url: str) -> tuple[aioredis.Redis, aioredis.Redis]:
    scheme = urlsplit(url).scheme
    if scheme not in {"redis", "rediss", "unix"}:
        msg = f"expected a Redis address (redis://, rediss://, unix:// or memory://), and got one of kind {scheme!r}"
        raise ValueError(msg)
    pool = aioredis.BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=COMMAND_SECONDS,
        socket_timeout=COMMAND_SECONDS,
        socket_connect_timeout=COMMAND_SECONDS,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
    )
    waiting = aioredis.ConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        socket_timeout=None,
        socket_connect_timeout=COMMAND_SECONDS,
        socket_keepalive=True,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
    )
    return aioredis.Redis.from_pool(pool), aioredis.Redis.from_pool(waiting)

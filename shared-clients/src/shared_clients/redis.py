"""Redis, which holds only data that may be lost, such as the live frames of runs.

All users of Redis go on without it: a command fails after half a second and is not retried here, because only its
caller knows whether a second try is safe. A blocking reader has its own connection without that limit, because redis-py
would otherwise end every long read with an error. Commands of many tasks share a round trip, which costs ten times as
much as one command. `memory://` is a Redis inside this process.
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
"""For commands; a command that gets none of them within `COMMAND_SECONDS` fails as if Redis did not answer."""

MAX_WAITING: Final = 16_384
"""Calls that may wait for a round trip; a further call fails as if Redis did not answer."""
COMMANDS_PER_BATCH: Final = 512
"""Commands in one round trip, apart from the rest of the last call."""
_CLOSED = "this process has closed its connections to Redis"

type Command = tuple[str | int | bytes, ...]

REDIS_ERRORS: Final = (RedisError, OSError, TimeoutError)
"""The errors of a call when Redis is down, does not answer, is full, or sends an invalid reply."""


class OutageLog:
    """Logs the start and the end of an outage once each, for any number of callers.

    Args:
        name: the failing system, for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._since: float | None = None

    def failed(self, error: Exception) -> None:
        if self._since is None:
            self._since = monotonic()
            log.warning("outage_began", of=self._name, error=f"{type(error).__name__}: {error}"[:200])

    def succeeded(self) -> None:
        if self._since is not None:
            log.info("outage_ended", of=self._name, seconds=round(monotonic() - self._since, 1))
            self._since = None


class CommandBatcher:
    """Sends the commands of all tasks in one round trip; new commands gather while a round trip lasts."""

    def __init__(self, client: aioredis.Redis) -> None:
        self._client = client
        self._waiting: deque[tuple[Sequence[Command], asyncio.Future[list[object]]]] = deque()
        self._sending: list[tuple[Sequence[Command], asyncio.Future[list[object]]]] = []
        self._has_commands = asyncio.Event()
        self._closed = False

    async def send(self, *commands: Command) -> list[object]:
        """Return the raw reply of Redis, or its error, for each command.

        Raises:
            RedisError, OSError, TimeoutError: there was no answer; any of the commands may have taken effect.
        """
        if self._closed:
            raise RedisConnectionError(_CLOSED)
        if len(self._waiting) >= MAX_WAITING:
            raise RedisConnectionError(f"{MAX_WAITING} calls wait for Redis already")
        answer: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, answer))
        self._has_commands.set()
        return await answer

    async def run(self) -> None:
        """Send batches until cancelled."""
        while True:
            await self._has_commands.wait()
            if self._waiting:
                await self._send_batch()
            else:
                self._has_commands.clear()

    def close(self) -> None:
        """Fail all calls that wait, and all later ones."""
        self._closed = True
        self._sending = [*self._waiting]
        self._fail(RedisConnectionError(_CLOSED))

    async def _send_batch(self) -> None:
        count = 0
        while self._waiting and count < COMMANDS_PER_BATCH:
            self._sending.append(self._waiting.popleft())
            count += len(self._sending[-1][0])
        try:
            replies = iter(
                await exchange(self._client, [command for commands, _ in self._sending for command in commands])
            )
            for commands, answer in self._sending:
                own_replies = list(islice(replies, len(commands)))
                if not answer.done():
                    answer.set_result(own_replies)
        except REDIS_ERRORS as error:
            self._fail(error)
        finally:
            self._fail(RedisConnectionError(_CLOSED))

    def _fail(self, error: Exception) -> None:
        """Raise the error in the calls of the batch that have no answer yet."""
        for _, answer in self._sending:
            if not answer.done():
                answer.set_exception(error)
        self._sending = []


async def exchange(client: aioredis.Redis, commands: Sequence[Command]) -> list[object]:
    """Send commands over one connection of a client; return the raw reply of Redis, or its error, for each."""
    pool = client.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # untyped in redis-py
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
        blocking: for blocking reads; the caller limits their time.
        batched: sends commands in one round trip with those of other tasks.
        reads: logs the outages of reading.
        writes: logs the outages of writing, which a full Redis refuses while it still reads.
    """

    commands: aioredis.Redis
    blocking: aioredis.Redis
    batched: CommandBatcher
    reads: OutageLog = field(default_factory=lambda: OutageLog("redis reads"))
    writes: OutageLog = field(default_factory=lambda: OutageLog("redis writes"))


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """Yield the connections of this process; they open at the first use, so the start works without Redis.

    Args:
        url: `redis://`, `rediss://` or `unix://` as redis-py reads them, or `memory://` for a Redis inside this process
            that ends with the context.

    Raises:
        ValueError: the address has another scheme, or is malformed.
    """
    commands, blocking = _in_process() if urlsplit(url).scheme == "memory" else _outside(url)
    batched = CommandBatcher(commands)
    try:
        async with Tasks() as tasks:
            tasks.start("redis_pipe", batched.run)
            yield Redis(commands, blocking, batched)
    finally:
        batched.close()
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
        msg = f"expected a Redis address (redis://, rediss://, unix:// or memory://), and got the scheme {scheme!r}"
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
    keepalive = {} if scheme == "unix" else {"socket_keepalive": True}  # redis-py refuses it for a Unix socket
    waiting = aioredis.ConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        socket_timeout=None,
        socket_connect_timeout=COMMAND_SECONDS,
        **keepalive,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
    )
    return aioredis.Redis.from_pool(pool), aioredis.Redis.from_pool(waiting)

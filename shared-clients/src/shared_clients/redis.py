"""Redis: the live log of what people see, and nothing that must not be lost.

Everything built on it goes on without it: commands give up after half a second and are not retried here, since their
callers know whether a second try is safe. A reader that blocks has its own connection without that limit, because
redis-py would otherwise end every long read with an error. `memory://` is a Redis inside this process.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, cast
from urllib.parse import urlsplit

import structlog
from fakeredis import FakeAsyncRedis, FakeServer
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = structlog.get_logger()

COMMAND_SECONDS: Final = 0.5
CONNECTIONS: Final = 16
"""For commands; whoever finds all of them busy for `COMMAND_SECONDS` is told that Redis does not answer."""

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


@dataclass(frozen=True, slots=True)
class Redis:
    """The connections of one process.

    Attributes:
        commands: answers or fails within `COMMAND_SECONDS`.
        blocking: for one reader that waits inside Redis; the caller bounds the wait.
        reads: whether reading works, said once per change.
        writes: whether writing works (a full Redis still reads).
    """

    commands: aioredis.Redis
    blocking: aioredis.Redis
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
    redis = _in_process() if urlsplit(url).scheme == "memory" else _outside(url)
    try:
        yield redis
    finally:
        await redis.commands.aclose()
        await redis.blocking.aclose()


def _in_process() -> Redis:
    server = FakeServer()
    return Redis(
        cast("aioredis.Redis", FakeAsyncRedis(server=server, protocol=2)),
        cast("aioredis.Redis", FakeAsyncRedis(server=server, protocol=2)),
    )


def _outside(url: str) -> Redis:
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
        socket_timeout=None,
        socket_connect_timeout=COMMAND_SECONDS,
        socket_keepalive=True,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis(aioredis.Redis.from_pool(pool), aioredis.Redis.from_pool(waiting))

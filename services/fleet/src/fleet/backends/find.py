"""Where a backend comes from: a given address first, then a program of this machine, then Docker."""

import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

from fleet.backends.kafka import running_kafka
from fleet.backends.postgres import running_postgres
from fleet.backends.redis import running_redis
from fleet.backends.server import Missing

Kind = Literal["postgres", "redis", "kafka"]

_LOCAL = {"postgres": running_postgres, "redis": running_redis, "kafka": running_kafka}


@asynccontextmanager
async def found(kind: Kind, address: str | None, folder: Path) -> AsyncIterator[str]:
    """Give the address of a real backend while the context is open.

    Args:
        kind: which one.
        address: one that the environment names; it is used as it is.
        folder: where a local one keeps its data.

    Raises:
        Missing: no address, no program, no Docker; the message says how to get the program.
        Permanent: the program is there and cannot run.
    """
    async with AsyncExitStack() as stack:
        try:
            url = address or (await stack.enter_async_context(_LOCAL[kind](folder))).url
        except Missing as missing:
            try:  # testcontainers is an optional extra, and this its one seam
                containers = importlib.import_module("fleet.backends.containers")
            except ModuleNotFoundError:
                raise missing from None
            url = await stack.enter_async_context(containers.running(kind, missing))
        yield url

"""Find a backend: a given address first, then a program of this machine, then Docker."""

import importlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

from local_backends.kafka import running_kafka
from local_backends.postgres import running_postgres
from local_backends.redis import running_redis
from local_backends.server import Backend, MissingProgram

Kind = Literal["postgres", "redis", "kafka"]

_LOCAL = {"postgres": running_postgres, "redis": running_redis, "kafka": running_kafka}


@asynccontextmanager
async def find_backend(kind: Kind, address: str | None, folder: Path, *, docker: bool = False) -> AsyncIterator[str]:
    """Yield the address of a real backend, which runs while the context is open.

    Args:
        kind: the backend that is needed.
        address: the address in the environment, if there is one; it is used as it is.
        folder: the folder for the data of a local one.
        docker: take a container, even where this machine has the program.

    Raises:
        MissingProgram: no address, no program, no Docker; the message says how to get the program.
        Permanent: the program exists and cannot run.
    """
    async with AsyncExitStack() as stack:
        try:
            url = address or (await stack.enter_async_context(_local(kind, folder, docker=docker))).url
        except MissingProgram as missing:
            try:  # testcontainers is an optional extra, and this its one seam
                containers = importlib.import_module("local_backends.containers")
            except ModuleNotFoundError:
                raise missing from None
            url = await stack.enter_async_context(containers.run_container(kind, missing))
        yield url


def _local(kind: Kind, folder: Path, *, docker: bool) -> AbstractAsyncContextManager[Backend]:
    if docker:
        raise MissingProgram(f"{kind} in a container: install testcontainers")
    return _LOCAL[kind](folder)

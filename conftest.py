"""What every test of every package may ask for: real backends, started on first use, once for all tests.

Faked: nothing. PostgreSQL, Redis and Kafka are the real ones (`local_backends`), from an address in FLOTILLA_TEST_…, a
program of this machine, or Docker; from Docker at once with FLOTILLA_TEST_BACKENDS=docker. Where one is missing the
tests that need it fail and say what to install: a check that did not run is not a check that passed.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, closing
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import structlog
from sqlalchemy import make_url

from local_backends import Kind, find_backend
from shared_clients.errors import Permanent

pytest_plugins = ("tests.sampling",)

ADDRESSES: dict[Kind, str] = {
    "postgres": "FLOTILLA_TEST_DATABASE_URL",
    "redis": "FLOTILLA_TEST_REDIS_URL",
    "kafka": "FLOTILLA_TEST_KAFKA",
}
FORGETFUL = ("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET full_page_writes = off", "SELECT pg_reload_conf()")
"""A server that only this session uses need not outlive the machine: its databases are made and dropped by the hundred.

What a killed process has committed is there all the same. Tests that kill a server start a durable one of their own.
"""
STRANGERS = ("FLOTILLA_", "OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_", "AZURE_", "OLLAMA_", "SLACK_", "OTEL_", "PG")
"""Beginnings of the variables that would have a test reach somebody's account, database or collector."""


def pytest_configure() -> None:
    for name in list(os.environ):
        if name.startswith(STRANGERS) and not name.startswith("FLOTILLA_TEST_"):
            del os.environ[name]
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[plain])  # the default draws tracebacks so beautifully that leases run out meanwhile


class Background:
    """An event loop in a thread of its own, which lives for the whole session: the children it starts live as long.

    A fixture may be asked for from inside a running test, where its own loop cannot be used.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="backends", daemon=True)
        self._thread.start()

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    with closing(Background()) as background:
        yield background


@pytest.fixture(scope="session")
def backend_url(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Kind], str]]:
    """Give the address of a backend, started the first time that it is asked for."""
    urls: dict[Kind, str] = {}
    stack = AsyncExitStack()
    docker = os.environ.get("FLOTILLA_TEST_BACKENDS") == "docker"

    def url(kind: Kind) -> str:
        if kind not in urls:
            folder = tmp_path_factory.mktemp(kind)
            try:
                start = stack.enter_async_context(
                    find_backend(kind, os.environ.get(ADDRESSES[kind]), folder, docker=docker)
                )
                urls[kind] = background.run(start)
                if kind == "postgres" and not os.environ.get(ADDRESSES[kind]):
                    background.run(execute(urls[kind], *FORGETFUL))
            except Permanent as error:
                pytest.fail(f"{error}\n(or name a running one in {ADDRESSES[kind]})", pytrace=False)
        return urls[kind]

    yield url
    background.run(stack.aclose())


@pytest.fixture(scope="session")
def postgres_url(backend_url: Callable[[Kind], str]) -> str:
    """`postgresql+asyncpg://…`, as a superuser: for making databases and roles."""
    return backend_url("postgres")


@pytest.fixture(scope="session")
def redis_url(backend_url: Callable[[Kind], str]) -> str:
    """`redis://…` of a server that tests share: use keys of your own."""
    return backend_url("redis")


@pytest.fixture(scope="session")
def kafka_url(backend_url: Callable[[Kind], str]) -> str:
    """`kafka://host:port` of a broker that tests share: use topics and groups of your own."""
    return backend_url("kafka")


@pytest.fixture(scope="session")
def new_database(background: Background, postgres_url: str) -> Iterator[Callable[..., str]]:
    """Give a function that makes an empty database and returns its address, for a module or a test of your own.

    With `like=` the address of one that was made before and that nobody is connected to, it is a copy: with tables, in
    a fraction of the time that migrations take.
    """
    made = list[str]()

    def new(*, like: str = "") -> str:
        name = f"test_{uuid4().hex}"
        template = make_url(like).database if like else "template1"
        background.run(execute(postgres_url, f'CREATE DATABASE {name} TEMPLATE "{template}" STRATEGY file_copy'))
        made.append(name)
        return make_url(postgres_url).set(database=name).render_as_string(hide_password=False)

    yield new
    background.run(execute(postgres_url, *(f"DROP DATABASE {name} WITH (FORCE)" for name in made)))


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()

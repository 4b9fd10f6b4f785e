"""The event loop and the databases of the model checks, and the count of their steps at the end of the run."""

import asyncio
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import settings

from agent_service.app import MIGRATIONS
from durable_work.migrating import migrate
from tests.models.database import CLOCK, Server
from tests.models.scheduler import FrozenLoop, summary

SCHEMA = "agent_service"

settings.register_profile("long")
settings.register_profile("sample")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.sample:
        settings.load_profile("sample")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := summary():
        terminalreporter.section("model checks")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="module", autouse=True)
def _silent() -> Iterator[None]:
    """Log nothing: a hundred thousand crashes are the purpose here."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def loop() -> Iterator[FrozenLoop]:
    loop = FrozenLoop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def server(loop: FrozenLoop, new_database: Callable[..., str]) -> Iterator[Server]:
    """agent-service's schema, under the models' clock."""
    url = new_database()
    asyncio.run(migrate(url, SCHEMA, MIGRATIONS))
    server = Server(loop, url, SCHEMA)
    loop.run_until_complete(server.start())
    loop.run_until_complete(server.look(CLOCK.format(schema=SCHEMA)))
    yield server
    loop.run_until_complete(server.close())

"""Whole fleets for the tests of this folder, each started once, when the first test asks for it."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.processes import Stores
from local_backends.server import free_port
from tests.fleets import Background, Fleet, ProcessFleet, held, one_process, several_processes

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def one_process_fleet(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet as `flotilla up` runs it, with the agents of the scenarios."""
    folder = tmp_path_factory.mktemp("fleet")
    with held(background, one_process(folder, HERE / "scenarios" / "agent-configs")) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def simulator_url() -> Iterator[str]:
    """A provider simulator in a process of its own: `http://host:port/v1`."""
    command = [sys.executable, "-m", "tests.simulators.openai", "--port", "0"]
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture(scope="session")
def stores(new_database: Callable[[], str], kafka_url: str, redis_url: str) -> Stores:
    """Real ones, with a database of their own."""
    return Stores(new_database(), kafka_url, redis_url)


@pytest.fixture(scope="session")
def process_fleet(
    background: Background, tmp_path_factory: pytest.TempPathFactory, stores: Stores, simulator_url: str
) -> Iterator[ProcessFleet]:
    """A fleet of processes, with the agents of the scenarios and those that ask the simulator."""
    folder = tmp_path_factory.mktemp("processes")
    for suite in ("scenarios", "processes"):
        shutil.copytree(HERE / suite / "agent-configs", folder / "agent-configs", dirs_exist_ok=True)
    environment = {"OPENAI_BASE_URL": simulator_url, "OPENAI_API_KEY": "sk-test"}
    with held(background, several_processes(folder, folder / "agent-configs", stores, environment)) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def http_fleet(
    background: Background,
    tmp_path_factory: pytest.TempPathFactory,
    new_database: Callable[[], str],
    redis_url: str,
) -> Iterator[ProcessFleet]:
    """A fleet of processes whose bus is a broker over HTTP, with the agents of the scenarios."""
    stores = Stores(new_database(), f"http://127.0.0.1:{free_port()}", redis_url)
    opening = several_processes(tmp_path_factory.mktemp("http"), HERE / "scenarios" / "agent-configs", stores, {})
    with held(background, opening) as fleet:
        yield fleet

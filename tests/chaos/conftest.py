"""The ground of the scenarios' short forms, opened once for each shape, and the scoreboard after the tests."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing
from os import environ
from pathlib import Path

import pytest

from tests.chaos.ground import Ground, Shape, open_ground, open_stores
from tests.chaos.scoreboard import Score, table
from tests.fleets import Background, held

SCORES: list[Score] = []


class Grounds:
    """The fleet of the shape that is being played on; the one before it is gone by then."""

    def __init__(self, background: Background, folder: Path) -> None:
        self._background = background
        self._folder = folder
        self._fleets = ExitStack()
        self._open: dict[Shape, Ground] = {}
        self._holding = ExitStack()
        self._stores = self._holding.enter_context(held(background, open_stores(folder / "stores")))
        self._count = 0

    def of(self, shape: Shape) -> Ground:
        if shape not in self._open:
            self._fleets.close()
            self._open.clear()
            self._count += 1
            opening = open_ground(self._folder / f"fleet-{self._count}", self._stores, shape)
            self._open[shape] = self._fleets.enter_context(held(self._background, opening))
        return self._open[shape]

    def close(self) -> None:
        self._fleets.close()
        self._holding.close()


@pytest.fixture(scope="session")
def grounds(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    with closing(Grounds(background, tmp_path_factory.mktemp("chaos"))) as grounds:
        yield grounds


@pytest.fixture(scope="session")
def seed() -> int:
    return int(environ.get("SEED") or secrets.randbelow(10**6))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if SCORES:
        terminalreporter.section("chaos")
        terminalreporter.write_line(table(SCORES))

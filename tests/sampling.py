"""Which tests `make test` leaves to `make test-all`: with `--sample`, some of those that are marked, drawn by a seed.

A planted fault shows that a check can fail. Each is shown every night; a change waits for a few of them, others each
time. `@pytest.mark.sampled(3)` on a parametrized test keeps three of its cases. Without `--sample` nothing is left out,
so a file that is run by hand is run whole. The seed is printed at the end, and `SEED=` draws the same again.
"""

import os
import random
import secrets
from collections import defaultdict
from collections.abc import Sequence

import pytest

SEED = "SEED"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sample", action="store_true", help="play only some of the tests marked as sampled, by SEED")


def pytest_configure(config: pytest.Config) -> None:
    """Settle the seed before processes of pytest-xdist inherit it: all have to draw the same."""
    config.addinivalue_line("markers", "sampled(count): with --sample, play so many of its cases, drawn by SEED")
    if config.option.sample:
        os.environ.setdefault(SEED, str(secrets.randbelow(10**6)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.sample:
        leave_out(config, items, drawn_out(items, os.environ[SEED]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.option.sample:
        terminalreporter.write_line(f"a sample: SEED={os.environ[SEED]} plays the same, `make test-all` everything")


def leave_out(config: pytest.Config, items: list[pytest.Item], without: Sequence[pytest.Item]) -> None:
    """Take tests out of a run, which counts them as deselected."""
    if without:
        config.hook.pytest_deselected(items=list(without))
        items[:] = [item for item in items if item not in without]


def drawn_out(items: Sequence[pytest.Item], seed: str) -> list[pytest.Item]:
    """Return the cases that a sample leaves out."""
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sampled"):
            cases[item.nodeid.partition("[")[0]].append(item)
    without = list[pytest.Item]()
    for name, alike in cases.items():
        marker = alike[0].get_closest_marker("sampled")
        assert marker is not None, "it was chosen by its marker"
        [count] = marker.args
        kept = random.Random(f"{seed} {name}").sample(alike, min(count, len(alike)))
        without += [item for item in alike if item not in kept]
    return without

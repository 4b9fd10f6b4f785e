"""Prints, after the tests of this folder, how the packages stand to the aims of the style page: told, never gated."""

import pytest

from tests.architecture.budgets import BUDGETS, Budgets, aims_report
from tests.architecture.sources import workspace_sources


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("budgets: how we stand to the aims")
    for line in aims_report(workspace_sources(), Budgets.read(BUDGETS.read_text())):
        terminalreporter.line(line)

"""With `--sample`, fleets of processes play only the files whose promise depends on how events travel.

The fleet in one process plays every file. Which ones the others play as well is said in the file: `transport: true`.
"""

import pytest

from shared_models.agents import parse_document
from tests.sampling import leave_out
from tests.scenarios.scenario import FOLDER, Scenario


def depends_on_transport(file: str) -> bool:
    return parse_document(file, (FOLDER / file).read_text(), Scenario).transport


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.sample:
        leave_out(config, items, [item for item in items if _is_played_elsewhere(item)])


def _is_played_elsewhere(item: pytest.Item) -> bool:
    given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    if given.get("fleet", "one_process_fleet") in {"one_process_fleet", "deployed_fleet"}:
        return False
    return not depends_on_transport(str(given["file"]))

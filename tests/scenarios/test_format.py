import pytest

from shared_models.agents import ConfigError, parse_document
from tests.scenarios.matching import differences, fill
from tests.scenarios.scenario import FOLDER, Scenario, read_scenario, scenario_files


@pytest.mark.parametrize("path", scenario_files(), ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_scenario_file_can_be_read(path: object) -> None:
    pass

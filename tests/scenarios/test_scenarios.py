import pytest

from tests.fleets import Fleet
from tests.scenarios.runner import play
from tests.scenarios.scenario import FOLDER, Scenario, read_scenario, scenario_files

FLEETS = [
    "one_process_fleet",
    pytest.param(
        "process_fleet", marks=[pytest.mark.processes, pytest.mark.kafka, pytest.mark.redis, pytest.mark.postgres]
    ),
]


@pytest.fixture(scope="session", params=FLEETS)
def fleet(request: pytest.FixtureRequest) -> Fleet:
    fleet: Fleet = request.getfixturevalue(request.param)
    return fleet


@pytest.mark.parametrize("file", [str(path.relative_to(FOLDER)) for path in scenario_files()])
async def test_it_goes_as_the_scenario_says(file: str, fleet: Fleet) -> None:
    scenario: Scenario = read_scenario(FOLDER / file)
    await play(file, scenario, fleet)

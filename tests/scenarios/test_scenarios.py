from collections.abc import Iterator

import pytest

from tests.fleets import Background, Fleet, deployed, held, one_process
from tests.scenarios.runner import play
from tests.scenarios.scenario import FOLDER, scenario_files

LATE = scenario_files("deadlines")
FLEETS = [
    pytest.param("one_process_fleet", id="one-process"),
    pytest.param(
        "process_fleet",
        id="processes",
        marks=[pytest.mark.processes, pytest.mark.kafka, pytest.mark.redis, pytest.mark.postgres],
    ),
    pytest.param("http_fleet", id="http", marks=[pytest.mark.processes, pytest.mark.redis, pytest.mark.postgres]),
]
if deployed():
    FLEETS = [pytest.param("deployed_fleet", id="deployed")]


@pytest.fixture(scope="session")
def deployed_fleet() -> Fleet:
    fleet = deployed()
    assert fleet is not None, "it is asked for only where there is one"
    return fleet


@pytest.fixture(scope="session", params=FLEETS)
def fleet(request: pytest.FixtureRequest) -> Fleet:
    fleet: Fleet = request.getfixturevalue(request.param)
    return fleet


@pytest.fixture
def hasty_fleet(
    background: Background, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    """A fleet whose requests live for a second and a half; a deployed one has to have been told so."""
    if deployed():
        told = deployed("FLOTILLA_TEST_HASTY_URL")
        if told is None:
            pytest.skip("the deployed fleet's requests live for longer; FLOTILLA_TEST_HASTY_URL names no other")
        yield told
        return
    monkeypatch.setenv("FLOTILLA_REQUEST_SECONDS", "1.5")
    with held(background, one_process(tmp_path_factory.mktemp("hasty"), FOLDER / "agent-configs")) as fleet:
        yield fleet


@pytest.mark.parametrize("file", [file for file in scenario_files() if file not in LATE])
async def test_it_goes_as_the_scenario_says(file: str, fleet: Fleet) -> None:
    await play(file, (FOLDER / file).read_text(), fleet)


@pytest.mark.parametrize("file", LATE)
async def test_it_goes_as_the_scenario_says_where_requests_are_short_lived(file: str, hasty_fleet: Fleet) -> None:
    await play(file, (FOLDER / file).read_text(), hasty_fleet)

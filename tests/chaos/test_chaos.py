import os

import pytest

from tests.chaos.conftest import SCORES, Grounds
from tests.chaos.playing import play
from tests.chaos.registry import scenarios
from tests.fleets import Background

pytestmark = [pytest.mark.processes, pytest.mark.kafka, pytest.mark.redis, pytest.mark.postgres]

ALIKE = sorted(scenarios().values(), key=lambda one: (str(one.shape), int(one.name[1:])))


@pytest.mark.parametrize("name", [scenario.name for scenario in ALIKE])
def test_every_promise_holds_while_things_break(name: str, grounds: Grounds, background: Background, seed: int) -> None:
    scenario = scenarios()[name]
    if scenario.needs_root and os.geteuid() != 0:
        pytest.skip(f"only root may make what {name} breaks; CI is root")
    played = background.run(play(grounds.of(scenario.shape), scenario, short=True, seed=seed))
    SCORES.append(played.score)
    assert played.good, played.told

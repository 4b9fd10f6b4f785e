import os

import pytest

from tests.chaos.conftest import SCORES, Grounds
from tests.chaos.playing import Played, play
from tests.chaos.registry import scenarios
from tests.fleets import Background

pytestmark = [pytest.mark.processes, pytest.mark.kafka, pytest.mark.redis, pytest.mark.postgres]

AT_PLACES = "F1"
"""The scenario of the failpoints: a sample plays it always, at some of them."""
ALIKE = sorted(scenarios().values(), key=lambda one: (str(one.shape), int(one.name[1:])))


def test_every_promise_holds_after_a_death_anywhere(
    grounds: Grounds, background: Background, seed: int, pytestconfig: pytest.Config
) -> None:
    scenario = scenarios()[AT_PLACES]
    few = pytestconfig.option.sample
    judge(background.run(play(grounds.of(scenario.shape), scenario, short=True, seed=seed, few=few)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", [scenario.name for scenario in ALIKE if scenario.name != AT_PLACES])
def test_every_promise_holds_while_things_break(name: str, grounds: Grounds, background: Background, seed: int) -> None:
    scenario = scenarios()[name]
    if scenario.needs_root and os.geteuid() != 0:
        pytest.skip(f"only root may make what {name} breaks; CI is root")
    judge(background.run(play(grounds.of(scenario.shape), scenario, short=True, seed=seed)))


def judge(played: Played) -> None:
    SCORES.append(played.score)
    assert played.good, played.told

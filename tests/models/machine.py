"""What every state machine here is made of: a scheduler, a laboratory, and rules that are the same for all.

A rule of Hypothesis starts work or moves the world; the steps between are drawn as bytes, two for each.
"""

import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, ClassVar, Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure, FlakyStrategyDefinition
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from shared_clients.errors import Unconfirmed
from tests.models.scheduler import COUNTED, SECONDS, Broken, FrozenLoop, Outside, Process, Scheduler

CHOICES: Final = st.binary(min_size=60, max_size=300)
TRIES: Final = 8
"""How often a machine looks for a planted fault, each time from another seed."""
LONG: Final = 25
"""How many times as many examples the profile `long` plays, each time from another seed."""


class Model(RuleBasedStateMachine):
    """A machine over a scheduler.

    Attributes:
        loop, outside: given by the test, once for all examples.
    """

    loop: ClassVar[FrozenLoop]
    outside: ClassVar[Outside]
    name: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self._began = time.perf_counter()
        self.scheduler = Scheduler(self.name, self.loop, self.outside)
        self.processes: list[Process] = []
        self._born = 0
        self._broken = False

    def born(self, kind: str) -> Process:
        self._born += 1
        process = Process(f"{kind} {self._born}")
        self.processes.append(process)
        return process

    def now(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of the test to its end."""
        try:
            return self.loop.run_until_complete(work)
        except BaseException:
            self._broken = True
            raise

    def start(self, process: Process, work: Coroutine[Any, Any, object]) -> None:
        async def begin() -> None:
            self.scheduler.spawn(process, work)
            await self.scheduler.settle()

        self.now(begin())

    @rule(choices=CHOICES)
    def go_on(self, choices: bytes) -> None:
        """Play on."""
        self.now(self.scheduler.play(choices))

    def teardown(self) -> None:
        """Heal the world, see that everything ends as promised, and clear up."""
        try:
            if not self._broken:
                self.now(self.finish())
        finally:
            self.now(self._clear())
            SECONDS[self.name] += time.perf_counter() - self._began

    async def finish(self) -> None:
        """Check what has to be true once nothing fails any more."""

    async def _clear(self) -> None:
        for process in self.processes:
            await self.scheduler.kill(process)
        self.processes.clear()


async def unless_away(work: Coroutine[Any, Any, object]) -> None:
    """Do what a loop of a service does, which tries again later where something outside does not answer."""
    with suppress(Unconfirmed):
        await work


def budget(examples: int, rules: int, *, prove: bool = False) -> settings:
    """Return the budget of a machine in a CI run; with `prove`, of a planted fault, which is not made smaller."""
    long = settings.get_current_profile_name() == "long" and not prove
    return settings(
        max_examples=examples * (LONG if long else 1),
        stateful_step_count=rules,
        derandomize=not long,
        database=None,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        phases=[Phase.generate] if prove else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


def play(machine: type[Model], within: settings) -> None:
    run_state_machine_as_test(machine, settings=within)


def found(machine: type[Model], within: settings) -> str:
    """Return what the machine says about a fault that was planted.

    Raises:
        AssertionError: it did not find it.
    """
    before = COUNTED[machine.name]
    for number in range(TRIES):
        try:
            play(seed(number)(machine), within)
        except Broken as broken:
            return str(broken)
        except FlakyFailure as flaky:  # found, and not again when the same was played
            if (group := flaky.subgroup(Broken)) is not None:
                return str(group.exceptions[0])
            raise
        except FlakyStrategyDefinition:  # likewise, and it went another way
            continue
    raise AssertionError(f"not found within {COUNTED[machine.name] - before} steps")

"""Whoever looks sees each frame once, one end, and the stored answer; each planted fault is found.

The planted faults are in what Redis hears, and in subclasses of the writer and the reader.
"""

from collections.abc import Mapping, Sequence

import pytest

from run_frames import FrameReader, FrameWriter
from shared_clients.redis import Command
from shared_models.frames import Cursor
from tests.models.machine import budget, found, play
from tests.models.redis import Heard, Store
from tests.models.scheduler import FrozenLoop, Outside
from tests.models.streams import StreamsModel

EXAMPLES, RULES = 100, 30


@pytest.fixture
def model(loop: FrozenLoop) -> type[StreamsModel]:
    return type("Bound", (StreamsModel,), {"loop": loop, "outside": Outside()})


def test_every_reader_sees_each_frame_once_and_the_stored_answer(model: type[StreamsModel]) -> None:
    play(model, budget(EXAMPLES, RULES))


def cursor_that_includes(_: Store, command: Command) -> Command:
    """Reads from a cursor on with the frame that was seen."""
    return tuple(str(part).removeprefix("(") if command[0] == "XRANGE" else part for part in command)


def cursor_that_skips(_: Store, command: Command) -> Command:
    """Reads from a cursor on without the frame after it."""
    if command[0] != "XRANGE" or command[2] == "(0-0":
        return command
    after = Cursor.parse(str(command[2])[1:])
    return (*command[:2], f"({after.epoch}-{after.sequence + 1}", *command[3:])


def log_without_fence(store: Store, command: Command) -> Command:
    """Lets a frame in whose place is taken, behind the last one."""
    if command[0] != "XADD" or not str(command[1]).startswith("frames:"):
        return command
    place = next(number for number, part in enumerate(command) if str(part)[:1].isdigit())
    there = store.server.dbs[0].get(str(command[1]).encode())
    last = Cursor(0, 0) if there is None else Cursor(there.value._last_id.ts, there.value._last_id.seq)
    wanted = Cursor.parse(str(command[place]))
    given = wanted if wanted > last else Cursor(last.epoch, last.sequence + 1)
    return (*command[:place], str(given), *command[place + 1 :])


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (cursor_that_includes, "came after|still going on"),
        (cursor_that_skips, "is stored|were seen of|never got an end"),
        (log_without_fence, "is stored|were seen of|came after|contradicts itself"),
    ],
)
def test_planted_fault_in_redis_is_found(model: type[StreamsModel], fault: Heard, why: str) -> None:
    mutant = type("Mutant", (model,), {"heard": staticmethod(fault)})
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found(mutant, budget(EXAMPLES, RULES, prove=True)))


class SplicesEpochs(FrameWriter):
    """Goes on in a later epoch without saying so."""

    async def begin(self, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> None:
        if self._epoch == 1:
            await super().begin(keep, snapshot)


class NeverAsksRows(FrameReader):
    """Waits for the log alone."""

    async def _end_silent(self) -> None:
        return


FAULTS: list[tuple[str, type, str]] = [
    ("writer", SplicesEpochs, "is stored"),
    ("reader", NeverAsksRows, "never got an end"),
]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("part", "fault", "why"), FAULTS)
def test_planted_fault_is_found(model: type[StreamsModel], part: str, fault: type, why: str) -> None:
    mutant = type("Mutant", (model,), {part: fault})
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found(mutant, budget(EXAMPLES, RULES, prove=True)))

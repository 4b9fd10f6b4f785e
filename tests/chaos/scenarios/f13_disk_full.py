"""F13: the database's disk is full for a while: nothing is accepted that is not kept, and all goes on by itself."""

from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from shared_clients.errors import Permanent
from tests.chaos.ground import Shape
from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial

DISK_MIB: Final = 512
FULL_SECONDS: Final = 30.0
SHORT_FULL_SECONDS: Final = 5.0
PIECE: Final = bytes(2**16)


async def fill_disk(trial: Trial) -> None:
    assert trial.ground.small_disk is not None
    ballast = trial.ground.small_disk / "ballast"
    async with trial.crowd():
        await trial.sleep(1.0)
        await trial.fault("the database's disk is full")
        began = trial.clock()
        while trial.clock() - began < (SHORT_FULL_SECONDS if trial.short else FULL_SECONDS):
            _fill(ballast)  # what the server frees meanwhile is taken as well
            await trial.sleep(0.2)
        ballast.unlink()
        await trial.fault("the disk has room again")
        trial.measure("all serve after there is room again", await trial.seconds(_come_back(trial)), 5.0)


def _fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        while file.write(PIECE) == len(PIECE):
            pass


def has_given_up(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def _come_back(trial: Trial) -> None:
    """Start the server again if it gave up, as whatever runs it would; then wait for everybody."""

    async def serves() -> bool:
        try:
            async with trial.ground.database() as database:
                return bool(await database.fetchval("SELECT 1"))
        except (Permanent, OSError):
            return False

    if has_given_up(trial.ground.stores["postgres"].pid):
        trial.notes.append("the server had given up, and was started again")
        await trial.ground.stores["postgres"].restart()
    await trial.until("the database serves", serves)
    await trial.ground.up()


SCENARIO = Scenario(
    name="F13",
    title="the database's disk is full",
    play=fill_disk,
    recovered=None,
    shape=Shape(disk_mib=DISK_MIB),
    needs_root=True,
    short_seconds=120.0,
)

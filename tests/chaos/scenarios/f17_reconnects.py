"""F17: readers whose connection is cut at every frame and every byte, and a thousand that come back in one moment."""

import asyncio
import re
from typing import Final

from tests.chaos.history import Entry
from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial
from tests.chaos.users import Kept
from tests.client import Request

RUNS: Final = 10
STORM: Final = 1_000
STORM_SECONDS: Final = 600.0
"""How long a reader of the storm tries: 22,000 connections, at about 8 ms of CPU each over all processes, take two
processors 90 s with nothing else to do. A stream that ends late is slow, not lost."""
SHORT_STRIDE: Final = 41
AT_ONCE: Final = 16
ID: Final = re.compile(rb"^id: (\S+)$", re.MULTILINE)


async def reconnect(trial: Trial) -> None:
    for _ in range(1 if trial.short else RUNS):
        await asyncio.gather(*(_read_in_pieces(trial, frames) for frames in (1, 2, 7)))
    await _cut_at_every_byte(trial)
    await _storm(trial)


async def _cut_at_every_byte(trial: Trial) -> None:
    """Read a stream as far as each of its bytes, and go on behind the last whole frame."""
    accepted = await trial.user().ask(trial.question(token_ms=0, words=6))
    if accepted is None:
        return
    await trial.user().poll(accepted)
    async with trial.client.stream(Request("GET", f"/chat/{accepted.request_id}")) as stream:
        whole = await stream.rest()
    cuts = range(1, len(whole), SHORT_STRIDE if trial.short else 1)
    turn = asyncio.Semaphore(AT_ONCE)

    async def cut_at(size: int) -> bool:
        async with turn:
            return await _joined(trial, accepted, size) == ID.findall(whole)

    good = sum(await asyncio.gather(*map(cut_at, cuts)))
    trial.notes.append(f"a stream of {len(whole)} bytes, cut behind {len(cuts)} of them: {good} times whole again")
    trial.expect(good == len(cuts) > 0, f"{len(cuts) - good} of {len(cuts)} cuts lost a frame or repeated one")


async def _joined(trial: Trial, accepted: Entry, size: int) -> list[bytes]:
    """Return the ids of the frames that came whole before the cut, and then of those behind it."""
    path = f"/chat/{accepted.request_id}"
    async with trial.client.stream(Request("GET", path)) as stream:
        had = ID.findall((await stream.first(size)).rpartition(b"\n\n")[0])
    last = {"Last-Event-ID": had[-1].decode()} if had else {}
    async with trial.client.stream(Request("GET", path, last)) as stream:
        return had + ID.findall(await stream.rest())


async def _read_in_pieces(trial: Trial, frames: int) -> None:
    """Read a run as it comes and again when it is over, leaving after so many frames each time."""
    user = trial.user()
    accepted = await user.ask(trial.question(token_ms=30, words=40))
    if accepted is None:
        return
    await user.follow(accepted, Kept(most=frames))
    await user.follow(accepted, Kept(most=frames))


async def _storm(trial: Trial) -> None:
    """Have everybody read one run, lose everybody's connection at once, and come back at once."""
    readers = 100 if trial.short else STORM
    accepted = await trial.user().ask(trial.question(token_ms=100, words=60))
    if accepted is None:
        return
    seen = [Kept(most=3) for _ in range(readers)]
    took = await trial.seconds(asyncio.gather(*(trial.user(STORM_SECONDS).follow(accepted, kept) for kept in seen)))
    trial.notes.append(f"{readers} readers of one run, cut every 3 frames: all had all of it after {took:.1f} s")


SCENARIO = Scenario(
    name="F17",
    title="streams cut at every frame and byte, and everybody back at once",
    play=reconnect,
    short_seconds=120.0,
    full_seconds=900.0,
)

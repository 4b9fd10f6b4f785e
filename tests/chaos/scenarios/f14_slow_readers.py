"""F14: clients that read slowly or not at all: they cost little, are cut in time, and nobody else waits for them."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from shared_models.frames import START, Cursor
from tests.chaos.history import Entry
from tests.chaos.registry import Scenario
from tests.chaos.strangers import GATEWAYS, Stranger, dialled, p99, resident, strangers
from tests.chaos.trial import Trial
from tests.chaos.users import Question
from tests.client import Request

KIB: Final = 1024
PER_STALLED: Final = 64 * KIB
STANDING: Final = 750
"""So many that what else a process takes and gives back meanwhile, some MiB, is little for each."""
BEFORE: Final = 200
"""Who come first, so that what the process needs for any of them is there."""
WAVE: Final = 50
"""Who come in one moment: what opening needs for a moment is not what standing still costs."""
CUT_SECONDS: Final = 30.0
LATE_SECONDS: Final = 5.0
SLOWER: Final = 1.05
"""How much later frames may come to the others, at the 99th percentile; what is judged allows for a shared machine."""
JUDGED_SLOWER: Final = 2.0
NOISE_SECONDS: Final = 0.05
BUFFER: Final = 4096
"""Of the kernel, for who does not read: what it keeps for the client is not what we keep."""
READERS_OF_ONE: Final = 20
TRIES: Final = 5
LATE_MS: Final = 5000
"""Before the first token: until then everybody should be there."""
CUTS: Final = re.compile(rb'flotilla_connections_cut_total\{awaited="reading"\} (\S+)')
EVENT: Final = re.compile(rb"id: (\d+-\d+)\ndata: ")


@dataclass
class Reader:
    """One reader of one run, and when each frame came to it."""

    stranger: Stranger
    run: Entry
    pause: float = 0.0
    came: dict[bytes, float] = field(default_factory=dict)
    _read: int = 0

    async def read(self) -> None:
        """Read to the end; who is told to come again does."""
        for _ in range(TRIES):
            await self.stranger.say(self.stranger.head("GET", f"/chat/{self.run.request_id}", {}))
            if await self.stranger.answered() == 200:
                await self._follow()
                return
            await asyncio.sleep(1.0)
            self.stranger.close()
            self.stranger.received.clear()
            await self.stranger.dial()
        raise AssertionError(f"a stream was not opened: {bytes(self.stranger.received[:300])!r}")

    async def _follow(self) -> None:
        while True:
            now = monotonic()
            for event in EVENT.finditer(self.stranger.received, self._read):
                self.came.setdefault(event[1], now)
                self._read = event.end()
            if b"RUN_FINISHED" in self.stranger.received[-4096:]:
                return
            await asyncio.sleep(self.pause)
            if not await self.stranger.hear(256 if self.pause else 65_536):
                return


async def be_slow(trial: Trial) -> None:
    """See what it costs when many do not read; then have everybody read, and then a tenth of them slowly."""
    await _stand_still(trial, STANDING)
    readers = 200 if trial.short else 1000
    alone = await _read_together(trial, readers, slow=0)
    beside = await _read_together(trial, readers, slow=readers // 10)
    trial.notes.append(
        f"{readers - readers // 10} readers: p99 of a frame's lag {alone * 1000:.1f} ms, {beside * 1000:.1f} ms beside "
        f"{readers // 10} slow ones and one that stands still: {beside / alone:.2f}x (goal {SLOWER:g}x)"
    )
    trial.expect(
        beside <= JUDGED_SLOWER * alone + NOISE_SECONDS, f"frames lagged {beside / alone:.2f}x; expected {SLOWER:g}x"
    )


async def _read_together(trial: Trial, count: int, slow: int) -> float:
    """Return how late frames come to those who read, at the 99th percentile: behind the first to whom they come."""
    words, pace = (30, 100) if trial.short else (60, 400)
    asking = (_ask(trial, words=words, token_ms=pace, start_ms=LATE_MS) for _ in range(max(1, count // READERS_OF_ONE)))
    runs = await asyncio.gather(*asking)
    quick = [Reader(one, runs[n % len(runs)]) for n, one in enumerate(strangers(trial.ground, count - slow))]
    slowly = [
        Reader(one, runs[n % len(runs)], pause=0.05) for n, one in enumerate(strangers(trial.ground, slow, BUFFER))
    ]
    still = strangers(trial.ground, 1 if slow else 0, BUFFER)
    everybody = [reader.stranger for reader in (*quick, *slowly)] + still
    await dialled(everybody)
    for one in still:
        await one.say(one.head("GET", f"/chat/{runs[0].request_id}", {}))
    await asyncio.gather(*(reader.read() for reader in (*quick, *slowly)))
    for one in everybody:
        one.close()
    lags = _lags(quick)
    trial.expect(bool(lags), "everything had been said before anybody was there")
    return p99(lags or [NOISE_SECONDS])


def _lags(readers: Sequence[Reader]) -> list[float]:
    """Return by how much each frame was late, to those who were there before it came to anybody."""
    first: dict[bytes, float] = {}
    for reader in readers:
        for cursor, at in reader.came.items():
            frame = reader.run.request_id.encode() + cursor
            first[frame] = min(at, first.get(frame, at))
    return [
        at - since
        for reader in readers
        for cursor, at in reader.came.items()
        if (since := first[reader.run.request_id.encode() + cursor]) > min(reader.came.values())
    ]


async def _stand_still(trial: Trial, count: int) -> None:
    """Have many open a long stream and not read it; see what each costs, and that it is cut and can go on."""
    run = await _ask(trial, words=300, token_ms=5, letters=200)
    await trial.user().poll(run)
    ground, gateway = trial.ground, GATEWAYS[0]
    path = f"/chat/{run.request_id}"
    still = [Stranger(ground.url(gateway), ground.fleet.key, BUFFER) for _ in range(BEFORE + count)]
    await dialled(still)
    before_cuts = await _cuts(trial, gateway)
    await _open_in_waves(still[:BEFORE], path)
    await asyncio.sleep(1.0)
    before = resident(ground, gateway)
    await _open_in_waves(still[BEFORE:], path)
    began = monotonic()
    await asyncio.sleep(1.0)
    each = (resident(ground, gateway) - before) / count
    trial.notes.append(f"{count} that stand still: {each / KIB:.0f} KiB each, everything counted (goal 64 KiB)")
    trial.expect(each <= PER_STALLED, f"who stands still costs {each / KIB:.0f} KiB; expected {PER_STALLED / KIB:.0f}")
    if not trial.short:
        await trial.until("all are cut", lambda: _are_cut(trial, gateway, before_cuts + len(still)))
        worst = monotonic() - began
        await asyncio.gather(*(one.cut() for one in still))
        trial.notes.append(f"all of them cut after {worst:.1f} s at the latest (goal {CUT_SECONDS:g} s)")
        trial.expect(worst <= CUT_SECONDS + LATE_SECONDS, f"the last was cut after {worst:.1f} s")
        await _go_on(trial, still[-1], path)
    for one in still:
        one.close()


async def _open_in_waves(some: Sequence[Stranger], path: str) -> None:
    for number in range(0, len(some), WAVE):
        await asyncio.gather(*(_open(one, path) for one in some[number : number + WAVE]))


async def _open(one: Stranger, path: str) -> None:
    await one.say(one.head("GET", path, {}))
    assert await one.answered() == 200, bytes(one.received[:200])


async def _are_cut(trial: Trial, gateway: str, count: float) -> bool:
    return await _cuts(trial, gateway) >= count


async def _cuts(trial: Trial, gateway: str) -> float:
    """Return how many clients a gateway has cut because they did not read."""
    told = await trial.client.call(Request("GET", "/metrics"), trial.ground.url(gateway))
    found = CUTS.search(told.body)
    return float(found[1]) if found else 0.0


async def _go_on(trial: Trial, one: Stranger, path: str) -> None:
    """Go on where a connection was cut: what it had and what comes now have neither a gap nor a repeat."""
    had = [Cursor.parse(event[1].decode()) for event in EVENT.finditer(bytes(one.received))]
    whole = had[: one.received.count(b"}\n\n")] or [START]
    trial.expect(b"RUN_FINISHED" not in one.received, "a stream that nobody read came to its end")
    headers = {"Last-Event-ID": str(whole[-1])}
    async with trial.client.stream(Request("GET", path, headers)) as stream:
        cursors = [
            Cursor.parse(line) for line in re.findall(r"^id: (\S+)$", (await stream.rest()).decode(), re.MULTILINE)
        ]
    expected = whole[-1].sequence + 1
    trial.expect(bool(cursors) and cursors[0].sequence == expected, f"went on at {cursors[:1]}; expected {expected}")


async def _ask(trial: Trial, *, words: int, token_ms: int, start_ms: int = 0, letters: int = 3) -> Entry:
    content = trial.question(token_ms=token_ms, words=words).content
    content = content.replace("[sim ", f"[sim start_ms={start_ms} ").replace(" and", " " + "a" * letters)
    run = await trial.user().ask(Question(content, f"You said: {content}"))
    assert run is not None, "nobody has accepted the question"
    return run


SCENARIO = Scenario(name="F14", title="slow readers, and readers that stand still", play=be_slow)

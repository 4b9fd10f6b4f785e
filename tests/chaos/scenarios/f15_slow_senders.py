"""F15: hundreds who send a byte at a time: they are cut in time, and who sends all of his is served as before."""

import asyncio
from collections.abc import Sequence
from typing import Final

from tests.chaos.registry import Scenario
from tests.chaos.strangers import Stranger, accept_p99, dialled, strangers
from tests.chaos.trial import Trial

HEAD_SECONDS: Final = 10.0
BODY_SECONDS: Final = 30.0
LATE_SECONDS: Final = 2.0
SLOWER: Final = 1.5
"""How much slower an accept may be meanwhile, at the 99th percentile; judged at twice that: the machine is shared."""
DRIP_SECONDS: Final = 0.5


async def be_slow(trial: Trial) -> None:
    """Have slow heads and slow bodies at the door while others ask."""
    lorises, bodies, count = (150, 40, 60) if trial.short else (500, 100, 500)
    before = await accept_p99(trial, count)
    heads, sends = strangers(trial.ground, lorises), strangers(trial.ground, bodies)
    await dialled([*heads, *sends])
    dripping = [asyncio.create_task(_head_by_the_byte(one)) for one in heads]
    dripping += [asyncio.create_task(_body_by_the_byte(one)) for one in sends]
    cuts = [asyncio.create_task(one.cut()) for one in heads]
    body_cuts = [asyncio.create_task(one.cut()) for one in sends]
    during = await accept_p99(trial, count)
    trial.notes.append(
        f"accept p99 {before * 1000:.1f} ms alone, {during * 1000:.1f} ms beside {lorises} slow heads and {bodies} "
        f"slow bodies: {during / before:.2f}x (goal {SLOWER:g}x)"
    )
    trial.expect(during <= 2 * SLOWER * before, f"accepts were {during / before:.2f}x as slow; expected {SLOWER:g}x")
    _judge(trial, "slow heads", await asyncio.gather(*cuts), HEAD_SECONDS)
    if trial.short:
        for task in body_cuts:
            task.cancel()
        await asyncio.wait(body_cuts)
    else:
        _judge(trial, "slow bodies", await asyncio.gather(*body_cuts), BODY_SECONDS)
        refused = sum(b" 408 " in one.received[:20] for one in sends)
        trial.expect(refused == bodies, f"{refused} of {bodies} slow bodies were told 408")
    for drip in dripping:
        drip.cancel()
    await asyncio.wait(dripping)
    for one in (*heads, *sends):
        one.close()


async def _head_by_the_byte(one: Stranger) -> None:
    await one.say(one.head("GET", "/api/v1/requests", {})[:-2] + b"X-Slow: ")
    await one.drip(b"a", DRIP_SECONDS)


async def _body_by_the_byte(one: Stranger) -> None:
    head = {"Content-Type": "application/json", "Content-Length": "100000"}
    await one.say(one.head("POST", "/api/v1/requests", head) + b'{"content": "')
    await one.drip(b"a", DRIP_SECONDS)


def _judge(trial: Trial, who: str, seconds: Sequence[float], goal: float) -> None:
    worst = max(seconds)
    trial.notes.append(f"{len(seconds)} {who} cut after {worst:.1f} s at the latest (goal {goal:g} s)")
    trial.expect(worst <= goal + LATE_SECONDS, f"{who}: the last was cut after {worst:.1f} s; expected {goal:g} s")


SCENARIO = Scenario(name="F15", title="slow-loris and slow bodies", play=be_slow)

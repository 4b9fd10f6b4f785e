"""F16: bodies and heads that nobody honest sends: each is refused with a 4xx, and nobody else notices."""

import asyncio
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.chaos.registry import Scenario
from tests.chaos.strangers import GATEWAYS, Stranger, resident, strangers
from tests.chaos.trial import Trial

LIMIT: Final = 262_144 + 16_384
MIB: Final = 1024 * 1024
GROWTH: Final = 10 * MIB
DEEP: Final = 10_000
SAYING_SECONDS: Final = 5.0
"""How long somebody who has been answered may go on sending."""
AT: Final = "/api/v1/requests"
JSON: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Bomb:
    """Something to send.

    Attributes:
        make: gives the bytes, for who sends them.
        statuses: any of which is right.
    """

    name: str
    make: Callable[[Stranger], bytes]
    statuses: frozenset[int]


def body(name: str, content: bytes, *statuses: int) -> Bomb:
    """Return a bomb that is a JSON body, or should be one."""

    def make(sender: Stranger) -> bytes:
        return sender.head("POST", AT, JSON | {"Content-Length": str(len(content))}) + content

    return Bomb(name, make, frozenset(statuses))


def _too_large(sender: Stranger) -> bytes:
    return sender.head("POST", AT, JSON | {"Content-Length": str(10 * LIMIT)}) + b"x" * (10 * LIMIT)


def _chunked(sender: Stranger) -> bytes:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    return sender.head("POST", AT, JSON | {"Transfer-Encoding": "chunked"}) + chunk * (10 * LIMIT // 0x4000)


@cache
def _packed() -> bytes:
    return gzip.compress(b'{"content": "' + b"x" * (100 * MIB) + b'"}')


def _gzip(sender: Stranger) -> bytes:
    packed = _packed()
    headers = JSON | {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}
    return sender.head("POST", AT, headers) + packed


def _many_headers(sender: Stranger) -> bytes:
    return sender.head("GET", AT, {f"X-{number}": "a" for number in range(10_000)})


def _huge_header(sender: Stranger) -> bytes:
    return sender.head("GET", AT, {"X-Large": "a" * MIB})


BAD: Final = (400, 422)
BOMBS: Final = (
    Bomb("a body of 10 times the limit", _too_large, frozenset({413})),
    Bomb("the same in chunks, without a length", _chunked, frozenset({413})),
    Bomb("a gzip bomb of 100 MiB", _gzip, frozenset({413, 415})),
    Bomb("10,000 headers", _many_headers, frozenset({400, 431})),
    Bomb("a header of 1 MiB", _huge_header, frozenset({400, 431})),
    body("arrays 10,000 deep", b'{"content": ' + b"[" * DEEP + b"]" * DEEP + b"}", *BAD),
    body("objects 10,000 deep", b'{"a":' * DEEP + b"1" + b"}" * DEEP, *BAD),
    body("an open end, 10,000 deep", b"[" * DEEP, *BAD),
    body("a lone surrogate", b'{"content": "\\ud800"}', *BAD),
    body("a lone surrogate in a name", b'{"content": "a", "metadata": {"\\udfff": "b"}}', *BAD),
    body("surrogates in UTF-8", b'{"content": "\xed\xa0\x80"}', *BAD),
    body("NaN", b'{"content": NaN}', *BAD),
    body("NaN in the metadata", b'{"content": "a", "metadata": {"a": NaN}}', *BAD),
    body("2 to the 70th", b'{"content": 1180591620717411303424}', *BAD),
    body("2 to the 70th in the metadata", b'{"content": "a", "metadata": {"a": 1180591620717411303424}}', *BAD),
    body("an integer of 100,000 digits", b'{"content": ' + b"9" * 100_000 + b"}", *BAD),
    body("NUL", b'{"content": "a\\u0000b"}', *BAD),
    body("a raw NUL", b'{"content": "a\x00b"}', *BAD),
    body("nothing", b"", *BAD),
)


async def send_all(trial: Trial) -> None:
    """Send each bomb again and again to both gateways while people talk, and look at the memory of all."""
    rounds = 3 if trial.short else 30
    await _throw(trial)
    names = [*GATEWAYS, *trial.ground.names("request-manager")]
    before = resident(trial.ground, *names)
    async with trial.crowd(people=2):
        for _ in range(rounds):
            await _throw(trial)
    grown = (resident(trial.ground, *names) - before) / len(names)
    trial.notes.append(f"{len(BOMBS)} kinds x {rounds * 2}; memory grew {grown / MIB:.1f} MiB a process (goal 10)")
    trial.expect(grown <= GROWTH, f"memory grew by {grown / MIB:.1f} MiB a process; expected 10 at most")


async def _throw(trial: Trial) -> None:
    for bomb in BOMBS:
        for sender in strangers(trial.ground, 2):
            await sender.dial()
            saying = asyncio.create_task(sender.say(bomb.make(sender)))
            status = await sender.answered()
            await asyncio.wait([saying], timeout=SAYING_SECONDS)
            saying.cancel()
            await asyncio.wait([saying])
            sender.close()
            expected = f"expected one of {sorted(bomb.statuses)}"
            trial.expect(status in bomb.statuses, f"{bomb.name}: answered {status}; {expected}")


SCENARIO = Scenario(name="F16", title="hostile bodies and heads", play=send_all)

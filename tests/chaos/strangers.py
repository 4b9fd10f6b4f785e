"""Strangers at the gateway's door: raw connections that send too little, too much or nonsense, or do not read.

No HTTP library takes part, because none would let us be so rude.
"""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import psutil

from tests.chaos.ground import Ground
from tests.chaos.history import Entry, Kind, Outcome, new
from tests.chaos.trial import Trial
from tests.client import Client, Request

PATIENCE: Final = 60.0
GATEWAYS: Final = ("api-gateway-1", "api-gateway-2")
CLOSED: Final = (ConnectionError, OSError)


@dataclass
class Stranger:
    """One raw connection to a gateway.

    Attributes:
        url: of the gateway.
        buffer: what the kernel may keep for it, where it is not to keep much.
        received: everything that came.
    """

    url: str
    key: str
    buffer: int | None = None
    received: bytearray = field(default_factory=bytearray)

    async def dial(self) -> None:
        place = urlsplit(self.url)
        loop = asyncio.get_running_loop()
        self.socket = socket.socket(socket.AF_INET)
        self.socket.setblocking(False)
        if self.buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        await loop.sock_connect(self.socket, ("127.0.0.1", place.port or 80))

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """Return a request's head, with the key and the Host that it needs."""
        whole = {"Host": urlsplit(self.url).netloc, "Authorization": f"Bearer {self.key}", **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in whole.items())
        return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()

    async def say(self, data: bytes) -> bool:
        """Send, and tell whether somebody took it."""
        try:
            await asyncio.get_running_loop().sock_sendall(self.socket, data)
        except CLOSED:
            return False
        return True

    async def drip(self, data: bytes, pause: float) -> None:
        """Send the same again and again until nobody takes it."""
        while await self.say(data):  # noqa: ASYNC110 - the pauses are the attack
            await asyncio.sleep(pause)

    async def hear(self, most: int = 65_536) -> int:
        """Take what has come, and return how much; nothing means that the other side has closed or cut."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self.socket, most)
        except CLOSED:
            return 0
        self.received += data
        return len(data)

    async def answered(self) -> int:
        """Wait for the head of an answer, and return its status; 0 where the connection was cut without one."""
        async with asyncio.timeout(PATIENCE):
            while b"\r\n\r\n" not in self.received:
                if not await self.hear():
                    return 0
        return int(self.received.split(b" ", 2)[1])

    async def cut(self) -> float:
        """Wait until the other side has closed or cut, and return how long that took."""
        began = monotonic()
        async with asyncio.timeout(PATIENCE):
            while await self.hear():
                pass
        return monotonic() - began

    def close(self) -> None:
        with suppress(OSError):
            self.socket.close()


def strangers(ground: Ground, count: int, buffer: int | None = None) -> list[Stranger]:
    """Return so many, one after the other at each gateway."""
    urls = ground.fleet.urls
    return [Stranger(urls[number % len(urls)], ground.fleet.key, buffer) for number in range(count)]


async def dialled(some: Sequence[Stranger]) -> None:
    for number in range(0, len(some), 50):
        await asyncio.gather(*(one.dial() for one in some[number : number + 50]))


@dataclass(frozen=True, slots=True)
class Took:
    """What an accept took, and what it brought."""

    entry: Entry
    seconds: float


async def accepted(trial: Trial, client: Client, *, words: int = 6) -> Took:
    """Ask something as a person does who hurries, and note it; what it takes is the gateway's time alone."""
    question = trial.question(token_ms=0, words=words)
    known = new(Kind.ASK, content=question.content, key=f"{trial.chance.getrandbits(64):016x}")
    begun = await trial.history.begin(replace(known, expects=question.expects))
    body = b'{"content": "%s"}' % question.content.encode()
    answer = await client.call(Request("POST", "/api/v1/requests", {"Idempotency-Key": begun.key}, body))
    outcome = Outcome.OK if answer.status == 202 else Outcome.UNKNOWN
    told = answer.json() if outcome is Outcome.OK else {}
    ended = replace(begun, outcome=outcome, status=answer.status, request_id=told.get("request_id", ""))
    entry = await trial.history.end(replace(ended, session_id=told.get("session_id", "")))
    trial.expect(outcome is Outcome.OK, f"an ordinary accept was answered {answer.status}; expected 202")
    return Took(entry, answer.seconds)


async def accept_p99(trial: Trial, count: int) -> float:
    """Return the 99th percentile of ordinary accepts, in seconds, after a few to warm up."""
    for _ in range(5):
        await accepted(trial, trial.client)
    return p99([(await accepted(trial, trial.client)).seconds for _ in range(count)])


def p99(values: Sequence[float]) -> float:
    return sorted(values)[max(0, ceil(0.99 * len(values)) - 1)]


def resident(ground: Ground, *names: str) -> int:
    """Return the memory of processes, in bytes."""
    return sum(int(psutil.Process(ground.fleet.pid(name)).memory_info().rss) for name in names)

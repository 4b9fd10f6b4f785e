"""The broker as a process that is killed in the middle: nothing that it had accepted is lost.

The sender keeps what was not accepted, and sends it again, as an outbox does.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiohttp import web

from mock_eventing.domain.structured import read_structured
from service_process.serving import bind
from tests.simulators.eventing import SECRET, Sender, sending, trigger
from tests.simulators.subscribers import PATIENCE, subscribing

EVENTS: Final = 60
KILLS: Final = 2

pytestmark = pytest.mark.processes


def free_port() -> int:
    with bind("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Crashing:
    """A broker's process that can be killed and started again at the same address."""

    sender: Sender
    environment: dict[str, str]
    process: Process | None = None
    errors: Path = field(default_factory=Path)

    async def start(self) -> None:
        with self.errors.open("ab") as errors:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "mock_eventing", env=self.environment, stderr=errors
            )
        async with asyncio.timeout(3 * PATIENCE):
            while not await self._ready():
                assert self.process.returncode is None, self.errors.read_text()
                await asyncio.sleep(0.05)

    async def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return await self.process.wait()

    async def _ready(self) -> bool:
        with suppress(aiohttp.ClientError):
            async with self.sender.session.get(f"{self.sender.url}/readyz") as response:
                return response.status == 200
        return False


@asynccontextmanager
async def crashing(folder: Path, *triggers: str) -> AsyncGenerator[Crashing]:
    file = folder / "triggers.yaml"
    file.write_text("".join(triggers))
    port = free_port()
    variables = {"MODE": "dev", "PORT": str(port), "TRIGGERS": str(file), "EVENTS_SECRET": SECRET}
    variables["DEAD_LETTERS"] = str(folder / "letters.jsonl")
    environment = {**os.environ, **{f"FLOTILLA_{name}": value for name, value in variables.items()}}
    async with sending(f"http://127.0.0.1:{port}") as sender:
        broker = Crashing(sender, environment, errors=folder / "errors")
        await broker.start()
        try:
            yield broker
        finally:
            assert broker.process is not None
            if broker.process.returncode is None:
                await broker.end(signal.SIGKILL)


async def publish(sender: Sender, id_: str, accepted: list[str]) -> None:
    """Send an event until it is accepted."""
    while id_ not in accepted:
        with suppress(aiohttp.ClientError):
            if (await sender.publish(id_)).status == 202:
                accepted.append(id_)
                return
        await asyncio.sleep(0.05)


async def test_a_kill_in_mid_delivery_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    committed: set[str] = set()
    accepted: list[str] = []

    async def commit(request: web.Request) -> web.Response:
        await asyncio.sleep(0.02)  # a commit takes its time, and a kill may come before or after it
        committed.add(request.headers["ce-id"])
        await asyncio.sleep(0.02)
        return web.Response(status=204)

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=422, text="never")

    async with subscribing() as subscriber, subscribing() as refusing:
        subscriber.says(commit)
        refusing.says(refuse)
        triggers = trigger("commits", subscriber.uri), trigger("refuses", refusing.uri)
        async with crashing(tmp_path, *triggers) as broker:
            room = asyncio.Semaphore(8)

            async def send(id_: str) -> None:
                async with room:
                    await publish(broker.sender, id_, accepted)

            sending_all = asyncio.gather(*(send(str(number)) for number in range(EVENTS)))
            for _ in range(KILLS):
                await subscriber.got(len(subscriber.received) + 10)
                assert await broker.end(signal.SIGKILL) == -signal.SIGKILL
                said, there = set(accepted), set(committed)
                assert said <= there
                await broker.start()
            await sending_all
            assert sorted(accepted, key=int) == [str(number) for number in range(EVENTS)]
            assert committed == set(accepted)
            assert await broker.end(signal.SIGTERM) == 0
    lines = [line for line in (tmp_path / "letters.jsonl").read_bytes().splitlines() if line.endswith(b"}")]
    assert {read_structured(line).attributes["id"] for line in lines} == set(accepted)
    assert len(subscriber.received) > EVENTS  # something was in the middle of it, and came twice


async def test_a_broker_that_may_be_anybody_s_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "triggers.yaml"
    file.write_text(trigger("a", "http://127.0.0.1:1/events"))
    for variables, named in (
        ({}, "FLOTILLA_EVENTS_SECRET is not set"),
        ({"FLOTILLA_MODE": "dev", "FLOTILLA_TRIGGERS": str(tmp_path / "absent")}, "FLOTILLA_TRIGGERS cannot be used"),
    ):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mock_eventing",
            env={**os.environ, "FLOTILLA_TRIGGERS": str(file), **variables},
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        assert (process.returncode, named in errors.decode()) == (1, True)

"""Service processes as our children: started, started again half a second after they die, and stopped together.

This is what a kubelet does, so that `flotilla up --processes` and the tests of faults see the recovery that a cluster
would. Children die with us, also when we are killed.
"""

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import structlog

from local_backends.embedded import dies_with_us

log = structlog.get_logger()

RESTART_SECONDS: Final = 0.5
STOP_SECONDS: Final = 12.0
"""A service drains within 10 s; what has not ended by then is killed."""


@dataclass(frozen=True, slots=True)
class Command:
    """A process to keep running.

    Attributes:
        name: unique, such as `agent-service-2`.
        module: run as `python -m <module>`.
        environment: all of it.
        url: where it will listen.
    """

    name: str
    module: str
    environment: Mapping[str, str]
    url: str


class Supervisor:
    """Keeps processes running; an async context manager that stops them all when it is left.

    Args:
        logs: a folder for one log file each.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._keeping: list[asyncio.Task[None]] = []
        self.restarts = 0

    async def __aenter__(self) -> Self:
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        await asyncio.gather(*(self._stop(name) for name in self._children))

    def pid(self, name: str) -> int:
        """Return the process id of a child as it is now."""
        return self._children[name].pid

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a child, such as SIGKILL; one that dies is started again."""
        with suppress(ProcessLookupError):
            self._children[name].send_signal(number)

    async def start(self, commands: Sequence[Command]) -> None:
        for command in commands:
            await self._spawn(command)
            self._keeping.append(asyncio.create_task(self._keep(command), name=f"keep {command.name}"))

    async def _keep(self, command: Command) -> None:
        while True:
            status = await self._children[command.name].wait()
            log.warning("process_ended", process=command.name, status=status, again_in_seconds=RESTART_SECONDS)
            await asyncio.sleep(RESTART_SECONDS)
            self.restarts += 1
            await self._spawn(command)

    async def _spawn(self, command: Command) -> None:
        with (self._logs / f"{command.name}.log").open("ab") as out:
            self._children[command.name] = await asyncio.create_subprocess_exec(
                *dies_with_us("KILL"),
                sys.executable,
                "-m",
                command.module,
                env=dict(command.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    async def _stop(self, name: str) -> None:
        child = self._children[name]
        if child.returncode is not None:
            return
        self.signal(name, signal.SIGCONT)
        self.signal(name, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await child.wait()
        except TimeoutError:
            log.warning("process_killed", process=name, after_seconds=STOP_SECONDS)
            self.signal(name, signal.SIGKILL)
            await child.wait()

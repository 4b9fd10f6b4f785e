"""Service processes as children: started, started again half a second after they die, and stopped together.

A kubelet does the same, so `flotilla up --processes` and the tests of faults recover as a cluster does. The children
die with this process, also when it is killed.
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

from local_backends.embedded import parent_death_command

log = structlog.get_logger()

RESTART_SECONDS: Final = 0.5
STOP_SECONDS: Final = 12.0
"""A service drains within 10 s; one that still runs after this time is killed."""


@dataclass(frozen=True, slots=True)
class Command:
    """A process to keep running.

    Attributes:
        name: unique, such as `agent-service-2`.
        module: run as `python -m <module>`.
        environment: its whole environment.
        url: the address at which it will listen.
    """

    name: str
    module: str
    environment: Mapping[str, str]
    url: str


class Supervisor:
    """An async context manager that keeps processes running, and stops them all at its end.

    Args:
        logs: the folder for one log file of each process.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._restart_tasks: list[asyncio.Task[None]] = []
        self.restarts = 0

    async def __aenter__(self) -> Self:
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._restart_tasks:
            task.cancel()
        await asyncio.gather(*self._restart_tasks, return_exceptions=True)
        await asyncio.gather(*(self._stop(name) for name in self._children))

    def pid(self, name: str) -> int:
        """Return the process id that a child has now; a restart changes it."""
        return self._children[name].pid

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a child, such as SIGKILL; a child that dies of it is started again."""
        with suppress(ProcessLookupError):
            self._children[name].send_signal(number)

    async def start(self, commands: Sequence[Command]) -> None:
        for command in commands:
            await self._spawn(command)
            self._restart_tasks.append(
                asyncio.create_task(self._restart_when_ended(command), name=f"keep {command.name}")
            )

    async def _restart_when_ended(self, command: Command) -> None:
        while True:
            status = await self._children[command.name].wait()
            log.warning("process_ended", process=command.name, status=status, again_in_seconds=RESTART_SECONDS)
            await asyncio.sleep(RESTART_SECONDS)
            self.restarts += 1
            await self._spawn(command)

    async def _spawn(self, command: Command) -> None:
        with (self._logs / f"{command.name}.log").open("ab") as out:
            self._children[command.name] = await asyncio.create_subprocess_exec(
                *parent_death_command("KILL"),
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

"""A server program as a child process, and the port that every backend has.

A child has a log and dies with this process (on Linux by kill -9 too). It can be killed and started again at the same
address, as the tests of faults need it.
"""

import asyncio
import secrets
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from local_backends.embedded import parent_death_command
from shared_clients.errors import Permanent

_POLL_SECONDS = 0.05
_PORTS = range(20_000, 30_000)
"""Below the ports of outgoing connections. A client that keeps calling the port of a killed server could otherwise get
that port as its own, connect to itself and hold the port for good."""


class MissingProgram(Permanent):
    """This machine lacks a program; the message says how to get it."""


class Backend(Protocol):
    """A backend that runs at the address `url` until its context ends."""

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int: ...

    async def kill(self) -> None:
        """End it by kill -9, and wait for its end."""

    async def restart(self) -> None:
        """Start it again with the same data at the same address; a running one is stopped first."""


class Server:
    """One server program. Start it from the main thread: Linux ends it with the thread that started it.

    Args:
        url: the address that it will have.
        command: the program and its arguments.
        folder: its working directory, also for its log.
        is_ready: tells whether it accepts work; called until it does.
        parent_death_signal: the signal that it gets when this process dies, such as TERM.
    """

    def __init__(
        self,
        url: str,
        command: Sequence[str],
        folder: Path,
        *,
        is_ready: Callable[[], Awaitable[bool]],
        parent_death_signal: str,
    ) -> None:
        self.url = url
        self._command = [*parent_death_command(parent_death_signal), *command]
        self._folder = folder
        self._log = folder / "server.log"
        self._is_ready = is_ready
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child, "it was not started"
        return self._child.pid

    async def start(self, *, seconds: float = 60.0) -> None:
        """Run it, and wait until it accepts work.

        Raises:
            Permanent: it ended, or accepted no work in time; the message ends with the end of its log.
        """
        child = self._spawn()
        for _ in range(round(seconds / _POLL_SECONDS)):
            if child.poll() is not None:
                raise Permanent(f"{self._command[-2:]} ended with status {child.returncode}: {self._log_tail()}")
            if await self._is_ready():
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise Permanent(f"{self.url} does not answer after {seconds:.0f} s: {self._log_tail()}")

    async def stop(self, *, seconds: float = 8.0) -> None:
        if self._child and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._wait_for_end(self._child), seconds)
            except TimeoutError:
                await self.kill()

    async def kill(self) -> None:
        if self._child:
            self._child.kill()
            await self._wait_for_end(self._child)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def _wait_for_end(self, child: subprocess.Popen[bytes]) -> None:
        while child.poll() is None:  # noqa: ASYNC110 - only the kernel knows when it ends
            await asyncio.sleep(_POLL_SECONDS)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - our own command
                self._command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._child

    def _log_tail(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").splitlines()[-5:]) + f" (log: {self._log})"


def own_folder(folder: Path) -> Path:
    """Make a folder that only this user may enter, if it is missing, and return its absolute path."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder.absolute()


def free_port() -> int:
    """Return a port of 127.0.0.1 on which no program listens."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port

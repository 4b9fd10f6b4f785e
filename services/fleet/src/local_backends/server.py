"""A server program as our child: what Redis and Kafka have in common, and what every backend can do.

A child has a log, dies when we die (by kill -9 too, on Linux), and can be killed and started again on the same address,
which is what the tests of faults need.
"""

import asyncio
import secrets
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from local_backends.embedded import dies_with_us
from shared_clients.errors import Permanent

_POLL_SECONDS = 0.05
_PORTS = range(20_000, 30_000)
"""Below the ports that kernels lend to outgoing connections: while a killed server is away, a client that keeps calling
its port could otherwise be connected to itself and take the port for good."""


class Missing(Permanent):
    """This machine lacks a program; the message says how to get it."""


class Backend(Protocol):
    """A backend that runs, at the address `url`, until its context is left."""

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int: ...

    async def kill(self) -> None:
        """End it by kill -9 and wait until it is gone."""

    async def restart(self) -> None:
        """Have it serve again, with the same data at the same address; ends it first if it still runs."""


class Server:
    """One server program. Start it from the main thread: Linux ends it with the thread that started it.

    Args:
        url: the address it will have.
        command: the program and its arguments.
        folder: where it runs, and where its log is.
        answers: tells whether it serves; asked until it says yes.
        orphaned: the signal it gets when we die.
    """

    def __init__(
        self, url: str, command: Sequence[str], folder: Path, *, answers: Callable[[], Awaitable[bool]], orphaned: str
    ) -> None:
        self.url = url
        self._command = [*dies_with_us(orphaned), *command]
        self._folder = folder
        self._log = folder / "server.log"
        self._answers = answers
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child, "it was not started"
        return self._child.pid

    async def start(self, *, seconds: float = 60.0) -> None:
        """Run it and wait until it serves.

        Raises:
            Permanent: it ended, or did not serve in time; the message ends with what it said last.
        """
        child = self._spawn()
        for _ in range(round(seconds / _POLL_SECONDS)):
            if child.poll() is not None:
                raise Permanent(f"{self._command[-2:]} ended with status {child.returncode}: {self._last_words()}")
            if await self._answers():
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise Permanent(f"{self.url} does not answer after {seconds:.0f} s: {self._last_words()}")

    async def stop(self, *, seconds: float = 8.0) -> None:
        if self._child and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._gone(self._child), seconds)
            except TimeoutError:
                await self.kill()

    async def kill(self) -> None:
        if self._child:
            self._child.kill()
            await self._gone(self._child)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def _gone(self, child: subprocess.Popen[bytes]) -> None:
        while child.poll() is None:  # noqa: ASYNC110 - the kernel's news, not ours
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

    def _last_words(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").splitlines()[-5:]) + f" (log: {self._log})"


def own_folder(folder: Path) -> Path:
    """Make a folder that only we may enter, if it is not there, and return its absolute path."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder.absolute()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port

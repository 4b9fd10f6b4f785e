"""A file of dead letters with one event in each line, in CloudEvents' JSON format; each line is fsync'd."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Self

from mock_eventing.domain.events import Event
from mock_eventing.domain.structured import write_structured
from shared_clients.errors import Permanent, Transient


class DeadLetterFile:
    """A context manager that holds the file open.

    Args:
        path: the file; it is created where it is missing, readable by its owner alone.

    Raises:
        Permanent: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._torn = False

    def __enter__(self) -> Self:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            folder = os.open(self._path.parent, os.O_RDONLY)
        except OSError as error:
            raise Permanent(f"the file that FLOTILLA_DEAD_LETTERS names cannot be written: {error.strerror}") from error
        os.fsync(folder)
        os.close(folder)
        size = os.fstat(self._file).st_size
        self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        return self

    def __exit__(self, *_exit: object) -> None:
        with self._lock:
            os.close(self._file)

    async def append(self, event: Event) -> None:
        line = write_structured(event, one_line=True) + b"\n"
        try:
            await asyncio.to_thread(self._write_line, line)
        except OSError as error:
            raise Transient(f"the dead letter cannot be written: {error.strerror}") from error

    def _write_line(self, line: bytes) -> None:
        """Write a whole line; a line that a crash or a full disk cut off gets its line end first."""
        with self._lock:
            rest = memoryview(b"\n" + line if self._torn else line)
            self._torn = True
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
            self._torn = False

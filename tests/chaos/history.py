"""What users did and what they were told, written down at once and for good: the checker believes nothing else.

Each attempt has a beginning and one of three ends: `ok` (we were told that it is done), `fail` (that it is not), or
`unknown` (nobody can tell). Lines are flushed to the disk before the user goes on, so that the history outlives
whatever dies, this process included.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import TypeAdapter


class Kind(StrEnum):
    """`ask` has a request accepted, `stream` reads its run, `result` polls, `cancel` stops it, `fault` is ours."""

    ASK = "ask"
    STREAM = "stream"
    RESULT = "result"
    CANCEL = "cancel"
    FAULT = "fault"


class Outcome(StrEnum):
    BEGUN = "begun"
    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line.

    Attributes:
        at: seconds of the wall clock, which the stores' times can be held against.
        operation: ties an end to its beginning.
        content: of `ask`, which no two requests share: it stands for the request where there is no id.
        key: the Idempotency-Key.
        status: HTTP's; `state` is the request's as it was told.
        answer: as it was told by polling.
        expects: the only answer that is right, where it is known in advance.
        frames: of a stream, cursor and bytes of each, over all its connections.
        said: what went wrong, or what the fault was.
    """

    at: float
    operation: int
    kind: Kind
    outcome: Outcome
    content: str = ""
    key: str = ""
    session_id: str = ""
    request_id: str = ""
    status: int | None = None
    state: str = ""
    answer: str | None = None
    expects: str | None = None
    frames: tuple[tuple[str, str], ...] = ()
    said: str = ""


_LINE: TypeAdapter[Entry] = TypeAdapter(Entry)


class History:
    """One scenario's history, in a file; a context manager.

    Args:
        file: made anew.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries: list[Entry] = []
        self._operations = itertools.count(1)

    def __enter__(self) -> Self:
        self._descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._descriptor)

    async def begin(self, entry: Entry) -> Entry:
        """Write the beginning of an operation and return it; its end is written by `end`."""
        begun = replace(entry, operation=next(self._operations), outcome=Outcome.BEGUN)
        return await self._write(begun)

    async def end(self, entry: Entry) -> Entry:
        """Write an end: the entry that `begin` has returned, with what is known now."""
        return await self._write(entry)

    async def _write(self, entry: Entry) -> Entry:
        entry = replace(entry, at=time.time())
        self.entries.append(entry)
        await asyncio.to_thread(self._flush, line_of(entry))
        return entry

    def _flush(self, line: bytes) -> None:
        os.write(self._descriptor, line)
        os.fsync(self._descriptor)


def new(kind: Kind, **known: str) -> Entry:
    """Return what is known of an operation that is about to begin."""
    return replace(Entry(0.0, 0, kind, Outcome.BEGUN), **known)  # type: ignore[arg-type]  # only texts are known then


def line_of(entry: Entry) -> bytes:
    return _LINE.dump_json(entry, exclude_defaults=True) + b"\n"


def read_history(file: Path) -> Sequence[Entry]:
    """Read a history again, to check it once more or elsewhere."""
    return [_LINE.validate_json(line) for line in file.read_bytes().splitlines()]

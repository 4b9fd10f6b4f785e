"""Frames: what a person sees of a run while it goes on, as AG-UI 1.0 events.

agent-service writes them, the gateway relays them, clients read them. A frame is JSON bytes made once and never parsed
on the way; its cursor is `<epoch>-<sequence>`, which is also the entry id in Redis, the SSE id and the fence. Only text
deltas are hot, so only they are built from a ready-made prefix.
"""

import re
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from pydantic_core import to_json

_CURSOR = re.compile(r"(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})")

TERMINAL_TYPES = frozenset({"RUN_FINISHED", "RUN_ERROR"})


@dataclass(frozen=True, order=True, slots=True)
class Cursor:
    """A place in a run's stream: the frame with this id has been seen, what follows has not."""

    epoch: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<epoch>-<sequence>`.

        Raises:
            ValueError: for anything else.
        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            msg = f"expected a cursor of the form <epoch>-<sequence>, such as 1-7, and got {text[:40]!r}"
            raise ValueError(msg)
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"


START = Cursor(0, 0)


@dataclass(frozen=True, slots=True)
class Frame:
    """One entry of a run's stream.

    Attributes:
        cursor: its id.
        type: AG-UI's event type, kept beside the bytes so that nobody has to parse them.
        data: the AG-UI event as JSON, with `metadata` of execution id, epoch and sequence.
    """

    cursor: Cursor
    type: str
    data: bytes

    @property
    def terminal(self) -> bool:
        return self.type in TERMINAL_TYPES


def encode(type_: str, execution_id: UUID, cursor: Cursor, fields: dict[str, object]) -> Frame:
    """Encode one AG-UI event.

    Args:
        type_: AG-UI's type, such as TEXT_MESSAGE_START.
        execution_id: the run.
        cursor: the frame's place; its epoch and sequence go into `metadata`.
        fields: AG-UI's camelCase fields of that type; an optional field that is unset must be left out, not null.
    """
    metadata = {"execution_id": str(execution_id), "epoch": cursor.epoch, "sequence": cursor.sequence}
    return Frame(cursor, type_, to_json({"type": type_, **fields, "metadata": metadata}))


class TextEncoder:
    """Encodes the deltas of one message: the constant parts are made once."""

    def __init__(self, execution_id: UUID, message_id: UUID, epoch: int) -> None:
        self._epoch = epoch
        self._head = b'{"type":"TEXT_MESSAGE_CONTENT","messageId":"%s","delta":' % str(message_id).encode()
        self._tail = b',"metadata":{"execution_id":"%s","epoch":%d,"sequence":' % (str(execution_id).encode(), epoch)

    def encode(self, sequence: int, delta: str) -> Frame:
        data = b"%s%s%s%d}}" % (self._head, to_json(delta), self._tail, sequence)
        return Frame(Cursor(self._epoch, sequence), "TEXT_MESSAGE_CONTENT", data)

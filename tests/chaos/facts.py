"""What is so once everything has come to rest: rows, logs, records and model calls, as plain values for the checker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """A request as request-manager has it; times are seconds of the wall clock."""

    request_id: str
    content: str
    session_id: str
    turn: int
    status: str
    answer: str | None
    created_at: float
    completed_at: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as agent-service has it.

    Attributes:
        untold: its terminal frame is still due.
        held: a worker is said to work on it.
        said: how many of its session's messages are its question; none, where the request could not become a run.
    """

    execution_id: str
    content: str
    session_id: str
    turn: int
    status: str
    epoch: int
    answer: str | None
    untold: bool = False
    held: bool = False
    said: int = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that the provider got: what the person had said so far, the question last."""

    contents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it.

    Attributes:
        logs: cursor and type of each frame in Redis, by request; a request is missing where Redis was lost.
        calls: what the provider was asked.
        leftovers: how much of what should be empty is not, by its name.
        cancels: how often the audit log has it that a request was to be stopped, by request.
        broken_records: what is wrong with the audit log.
    """

    rows: Sequence[Row] = ()
    runs: Sequence[Run] = ()
    logs: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    calls: Sequence[Asked] = ()
    leftovers: Mapping[str, int] = field(default_factory=dict)
    cancels: Mapping[str, int] = field(default_factory=dict)
    broken_records: Sequence[str] = ()

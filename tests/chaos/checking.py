"""The judge: holds what users were told against what is so, and says what does not fit. Pure.

Every `ok` has exactly one terminal state; every `fail` none; every `unknown` none or one, and its retry agrees. Each
rule below is shown failing in `test_checking.py` by a planted violation.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from pydantic_core import from_json

from shared_models.frames import START, Cursor, Frame
from shared_models.requests import TERMINAL, Status
from tests.chaos.facts import Facts, Row, Run
from tests.chaos.history import Entry, Kind, Outcome
from tests.simulators.viewer import Viewer


class Fault(StrEnum):
    """What may be wrong; the scoreboard counts the first four in columns of their own."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    ORDER = "order break"
    STREAM = "stream gap"
    UNEXPECTED = "unexpected"
    WRONG = "wrong answer"
    UNANSWERED = "unanswered"
    LEFT = "left over"
    RECORD = "wrong record"
    PROMISE = "broken promise"
    GOAL = "goal missed"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not fit.

    Attributes:
        content: of the request that it is about; empty where it is about none.
        found: what was found, and what was expected.
    """

    fault: Fault
    content: str
    found: str


DENIAL = "/unavailable"
"""In the type of the problem that says: nothing was done."""
BLAMES = frozenset({400, 401, 403, 404, 409, 422})
"""Refusals that blame the caller, unlike those for being busy."""


class Case:
    """A history and the facts, joined by the requests' contents.

    Args:
        entries: the history.
        facts: as they were at rest.
        frames_lost: Redis was broken, so that a log may have begun anew and an end may have come from the row alone.
    """

    def __init__(self, entries: Sequence[Entry], facts: Facts, *, frames_lost: bool = False) -> None:
        self.facts = facts
        self.frames_lost = frames_lost
        self.entries = entries
        self.asked: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            if entry.kind is Kind.ASK:
                self.asked[entry.content].append(entry)
        self.content_of = {row.request_id: row.content for row in facts.rows}

    def of(self, kind: Kind) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.kind is kind and entry.outcome is not Outcome.BEGUN)

    @cached_property
    def rows(self) -> Mapping[str, Sequence[Row]]:
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in self.facts.rows:
            rows[row.content].append(row)
        return rows

    @cached_property
    def runs(self) -> Mapping[str, Run]:
        return {run.execution_id: run for run in self.facts.runs}

    @cached_property
    def cancelled(self) -> frozenset[str]:
        return frozenset(entry.request_id for entry in self.entries if entry.kind is Kind.CANCEL)

    @cached_property
    def sessions(self) -> Mapping[str, Sequence[Row]]:
        sessions: dict[str, list[Row]] = defaultdict(list)
        for row in sorted(self.facts.rows, key=lambda row: row.turn):
            sessions[row.session_id].append(row)
        return sessions


def check(case: Case) -> list[Finding]:
    """Return everything that does not fit."""
    return [finding for rule in RULES for finding in rule(case)]


def outcomes(case: Case) -> Iterator[Finding]:
    """An ok has one request and a fail none; attempts of one request agree."""
    for content, attempts in case.asked.items():
        rows = case.rows.get(content, ())
        told = {entry.request_id for entry in attempts if entry.outcome is Outcome.OK}
        unknown = any(entry.outcome is Outcome.UNKNOWN for entry in attempts) or all(
            entry.outcome is Outcome.BEGUN for entry in attempts
        )
        if len(told) > 1 or len(rows) > 1:
            ids = sorted(told | {row.request_id for row in rows})
            yield Finding(Fault.DUPLICATED, content, f"one key stands for {len(ids)} requests: {ids}; expected one")
        if told and not rows:
            yield Finding(Fault.LOST, content, f"it was accepted as {min(told)}, and there is no such request")
        elif told and rows and rows[0].request_id not in told:
            found = f"accepted as {min(told)}, stored as {rows[0].request_id}; expected the same"
            yield Finding(Fault.DUPLICATED, content, found)
        if rows and not told and not unknown:
            yield Finding(Fault.UNEXPECTED, content, f"it was refused, and is stored as {rows[0].request_id}")
    for content in case.rows.keys() - case.asked.keys():
        yield Finding(Fault.UNEXPECTED, content, "nobody has asked this, and it is stored")


def refusals(case: Case) -> Iterator[Finding]:
    """Nobody who asks as one should is refused for what he asked."""
    for entry in case.of(Kind.ASK):
        if entry.outcome is Outcome.FAIL and entry.status in BLAMES:
            yield Finding(Fault.UNEXPECTED, entry.content, f"it was refused with {entry.status}: {entry.said}")


def promises(case: Case) -> Iterator[Finding]:
    """A request whose caller was told that nothing was done was not done by then."""
    stored = {row.content: row for row in case.facts.rows}
    for entry in case.of(Kind.ASK):
        row = stored.get(entry.content)
        denied = entry.status == 503 and DENIAL in entry.said
        if denied and row is not None and row.created_at < entry.at:
            yield Finding(Fault.PROMISE, entry.content, f"told that nothing was done, and stored as {row.request_id}")


def ends(case: Case) -> Iterator[Finding]:
    """Every request has one end, of which request-manager, agent-service and whoever polled say the same."""
    for row in case.facts.rows:
        if Status(row.status) not in TERMINAL:
            yield Finding(Fault.LOST, row.content, f"{row.request_id} is still {row.status}; expected an end")
            continue
        run = case.runs.get(row.request_id)
        if run is None:
            yield Finding(Fault.LOST, row.content, f"{row.request_id} has ended as {row.status} without a run")
        elif (run.status, run.answer) != (row.status, row.answer):
            found = (
                f"the run ended as {run.status} with {run.answer!r}, the request as {row.status} with {row.answer!r}"
            )
            yield Finding(Fault.DUPLICATED, row.content, f"{found}; expected the same")
        elif row.status == Status.COMPLETED and run.said != 1:
            found = f"its question is in the conversation {run.said} times; expected once"
            yield Finding(Fault.DUPLICATED, row.content, found)
    for run in case.facts.runs:
        if run.execution_id not in case.content_of:
            yield Finding(Fault.UNEXPECTED, run.content, f"the run {run.execution_id} is of no request")


def told_ends(case: Case) -> Iterator[Finding]:
    """What was told as the end is the end."""
    stored = {row.request_id: row for row in case.facts.rows}
    for entry in case.of(Kind.RESULT):
        row = stored.get(entry.request_id)
        if gave_up_before_the_end(entry, row):
            continue
        if entry.outcome is not Outcome.OK:
            content = row.content if row else ""
            yield Finding(Fault.LOST, content, f"{entry.request_id}: whoever polled never heard the end: {entry.said}")
        elif row is None or (entry.state, entry.answer) != (row.status, row.answer):
            found = f"told {entry.state} with {entry.answer!r}, stored {row}; expected the same"
            yield Finding(Fault.DUPLICATED, row.content if row else "", found)


def gave_up_before_the_end(entry: Entry, row: Row | None) -> bool:
    """Tell somebody whose patience ended before the request did, as behind a long outage: nothing was kept from him."""
    ended = row.completed_at if row is not None else None
    return entry.outcome is Outcome.UNKNOWN and ended is not None and ended > entry.at


def answers(case: Case) -> Iterator[Finding]:
    """Every request that nobody cancelled is answered, with its own answer."""
    for row in case.facts.rows:
        expected = next((entry.expects for entry in case.asked.get(row.content, ())), None)
        if row.status == Status.COMPLETED and expected is not None and row.answer != expected:
            yield Finding(Fault.WRONG, row.content, f"the answer is {row.answer!r}; expected {expected!r}")
        if row.status != Status.COMPLETED and Status(row.status) in TERMINAL and row.request_id not in case.cancelled:
            yield Finding(Fault.UNANSWERED, row.content, f"{row.request_id} ended as {row.status}; expected an answer")


def turns(case: Case) -> Iterator[Finding]:
    """A session's turns are numbered without a gap or a repeat, in both services alike."""
    for session_id, rows in case.sessions.items():
        numbers = [row.turn for row in rows]
        if numbers != list(range(1, len(rows) + 1)):
            yield Finding(Fault.ORDER, rows[0].content, f"session {session_id} has turns {numbers}; expected 1, 2, …")
        for row in rows:
            run = case.runs.get(row.request_id)
            if run is not None and (run.session_id, run.turn) != (row.session_id, row.turn):
                found = f"turn {row.turn} of {row.session_id} ran as turn {run.turn} of {run.session_id}"
                yield Finding(Fault.ORDER, row.content, found)


def model_calls(case: Case) -> Iterator[Finding]:
    """A turn's model is asked when every turn before it has ended, and is sent those that were answered, in order."""
    place = {row.content: row for row in case.facts.rows}
    for call in case.facts.calls:
        row = place.get(call.contents[-1]) if call.contents else None
        if row is None:
            continue
        before = [earlier for earlier in case.sessions[row.session_id] if earlier.turn < row.turn]
        expected = [earlier.content for earlier in before if earlier.status == Status.COMPLETED]
        if list(call.contents[:-1]) != expected:
            found = f"turn {row.turn} was asked after {list(call.contents[:-1])}; expected {expected}"
            yield Finding(Fault.ORDER, row.content, found)


def streams(case: Case) -> Iterator[Finding]:
    """A stream has no gap and no repeat, its text is the stored answer, and it ends as the request did."""
    stored = {row.request_id: row for row in case.facts.rows}
    for entry in case.of(Kind.STREAM):
        row = stored.get(entry.request_id)
        if gave_up_before_the_end(entry, row):
            continue
        log = [cursor for cursor, _ in case.facts.logs.get(entry.request_id, ())]
        for found in stream_faults(entry, row):
            yield Finding(Fault.STREAM, row.content if row else "", f"stream of {entry.request_id}: {found}")
        had = [cursor for cursor, _ in entry.frames]
        told_the_rest = case.frames_lost or any(is_resync(frame) for frame in frames_of(entry))
        if row is not None and not told_the_rest and log and had[:-1] != log[:-1]:  # an end may come from the row
            found = f"stream of {entry.request_id}: it had {had}; expected what the log holds, {log}"
            yield Finding(Fault.STREAM, row.content, found)


def stream_faults(entry: Entry, row: Row | None) -> Iterator[str]:
    """Say what is wrong with one client's stream."""
    if row is None:
        yield "there is no such request"
        return
    if entry.outcome is not Outcome.OK:
        yield f"it never came to its end: {entry.said}"
        return
    frames = frames_of(entry)
    lossy = any(is_resync(frame) for frame in frames)
    viewer = Viewer(strict=not lossy)
    before = START
    for frame in frames:
        if not follows(before, frame):
            yield f"a gap between {before} and {frame.cursor}"
        try:
            viewer.take(frame)
        except (AssertionError, KeyError) as error:
            yield f"at {frame.cursor}: {error}"
            return
        before = frame.cursor
    if viewer.outcome is None or (viewer.outcome[0] == "RUN_FINISHED") != (row.status == Status.COMPLETED):
        yield f"it ended with {viewer.outcome and viewer.outcome[0]}, the request as {row.status}"
        return
    text = next(reversed(viewer.texts.values()), "")
    if row.status == Status.COMPLETED and text != row.answer:
        yield f"its text is {text!r}; expected {row.answer!r}"


def frames_of(entry: Entry) -> list[Frame]:
    return [Frame(Cursor.parse(cursor), from_json(data)["type"], data.encode()) for cursor, data in entry.frames]


def follows(before: Cursor, frame: Frame) -> bool:
    """Tell whether a frame is next: a gap has to be owned up to by a resync."""
    if is_resync(frame) or frame.terminal:
        return True
    if frame.cursor.epoch == before.epoch:
        return frame.cursor.sequence == before.sequence + 1
    return frame.cursor.sequence == 1


def is_resync(frame: Frame) -> bool:
    return frame.type == "CUSTOM" and from_json(frame.data).get("name") == "resync"


def logs(case: Case) -> Iterator[Finding]:
    """A log has one terminal frame, and it is last."""
    for request_id, log in case.facts.logs.items():
        last = [cursor for cursor, type_ in log if type_ in {"RUN_FINISHED", "RUN_ERROR"}]
        if last != [cursor for cursor, _ in log[-1:]]:
            found = f"log of {request_id}: terminal frames at {last}, its end is {log[-1:]}; expected one, the last"
            yield Finding(Fault.STREAM, case.content_of.get(request_id, ""), found)


def leftovers(case: Case) -> Iterator[Finding]:
    """Nothing is left that somebody should have done: events, leases, work in progress."""
    for name, count in case.facts.leftovers.items():
        if count:
            yield Finding(Fault.LEFT, "", f"{name}: {count}; expected none")
    for run in case.facts.runs:
        if run.untold:
            yield Finding(Fault.LEFT, run.content, f"the terminal frame of {run.execution_id} is still due")
        if run.held and Status(run.status) in TERMINAL:
            yield Finding(Fault.LEFT, run.content, f"{run.execution_id} has ended, and a worker still holds it")


def records(case: Case) -> Iterator[Finding]:
    """The audit log is whole, and has each cancel once."""
    yield from (Finding(Fault.RECORD, "", found) for found in case.facts.broken_records)
    for row in case.facts.rows:
        times = case.facts.cancels.get(row.request_id, 0)
        if times > 1 or (times == 0 and row.status == Status.CANCELLED):
            found = f"{row.request_id} is {row.status}, and its cancel is on record {times} times"
            yield Finding(Fault.RECORD, row.content, found)


RULES: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    outcomes,
    refusals,
    promises,
    ends,
    told_ends,
    answers,
    turns,
    model_calls,
    streams,
    logs,
    leftovers,
    records,
)


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it took after a fault: to the first new ok, and to the end of the last request that it stranded."""

    what: str
    first_ok: float | None
    stranded: float | None


def recoveries(case: Case) -> list[Recovery]:
    """Measure each fault of a history."""
    begun = {entry.operation: entry.at for entry in case.entries if entry.outcome is Outcome.BEGUN}
    oks = sorted(
        (begun[entry.operation], entry.at)
        for entry in case.entries
        if entry.kind is Kind.ASK and entry.outcome is Outcome.OK and entry.operation in begun
    )
    found = []
    for fault in case.entries:
        if fault.kind is Kind.FAULT:
            accepted = [at for since, at in oks if since >= fault.at]
            done = [
                row.completed_at
                for row in case.facts.rows
                if row.created_at <= fault.at and row.completed_at is not None and row.completed_at > fault.at
            ]
            found.append(
                Recovery(
                    fault.said,
                    min(accepted) - fault.at if accepted else None,
                    max(done) - fault.at if done else None,
                )
            )
    return found


def attempts_by_outcome(case: Case) -> Counter[Outcome]:
    return Counter(entry.outcome for entry in case.of(Kind.ASK))

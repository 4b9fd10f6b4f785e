"""Every kind of violation, planted one at a time into a case in which nothing is wrong."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from shared_models.frames import Cursor, Frame, encode, resync
from tests.chaos.checking import Case, Fault, check, recoveries
from tests.chaos.facts import Asked, Facts, Row, Run
from tests.chaos.history import Entry, Kind, Outcome

RUN = UUID("01a1fecb-b2d2-7666-ab5d-f0daf12cc0c3")
ID, NEXT_ID = str(RUN), "01a1fecb-b2d2-7666-ab5d-f0daf12cc0c4"
SESSION = "01a1fecb-b2d2-7666-ab5d-f0daf12cc0c5"
FIRST, SECOND, REFUSED = "F0-1", "F0-2", "F0-3"
ANSWER = "one two"
ENDED = {"result": {"request_id": ID}}


def frame(cursor: str, type_: str, **fields: object) -> Frame:
    return encode(type_, RUN, Cursor.parse(cursor), fields)


def written(frames: list[Frame]) -> tuple[tuple[str, str], ...]:
    return tuple((str(one.cursor), one.data.decode()) for one in frames)


FRAMES = [
    frame("1-1", "RUN_STARTED", threadId=SESSION, runId=ID),
    frame("1-2", "TEXT_MESSAGE_START", messageId="m", role="assistant"),
    frame("1-3", "TEXT_MESSAGE_CONTENT", messageId="m", delta="one "),
    frame("1-4", "TEXT_MESSAGE_CONTENT", messageId="m", delta="two"),
    frame("1-5", "TEXT_MESSAGE_END", messageId="m"),
    frame("2-0", "RUN_FINISHED", threadId=SESSION, runId=ID, **ENDED),
]
LOG = tuple((str(one.cursor), one.type) for one in FRAMES)
ASK = Entry(1.0, 1, Kind.ASK, Outcome.BEGUN, content=FIRST, key="k", expects=ANSWER)
OK = replace(ASK, at=1.1, outcome=Outcome.OK, request_id=ID, session_id=SESSION)
UNKNOWN = replace(ASK, at=1.05, outcome=Outcome.UNKNOWN)
STREAM = Entry(2.0, 2, Kind.STREAM, Outcome.OK, request_id=ID, frames=written(FRAMES))
RESULT = Entry(2.0, 3, Kind.RESULT, Outcome.OK, request_id=ID, state="completed", answer=ANSWER)
ASK_NEXT = Entry(3.0, 4, Kind.ASK, Outcome.BEGUN, content=SECOND)
OK_NEXT = replace(ASK_NEXT, at=3.1, outcome=Outcome.OK, request_id=NEXT_ID, session_id=SESSION)
REFUSAL = Entry(4.0, 5, Kind.ASK, Outcome.FAIL, content=REFUSED, status=429)
ENTRIES = (ASK, UNKNOWN, OK, STREAM, RESULT, ASK_NEXT, OK_NEXT, REFUSAL)
DENIED = '{"type":"https://flotilla.dev/problems/unavailable"}'
ROW = Row(ID, FIRST, SESSION, 1, "completed", ANSWER, 1.1, 2.0)
NEXT_ROW = Row(NEXT_ID, SECOND, SESSION, 2, "completed", "Yes.", 3.1, 4.0)
RAN = Run(ID, FIRST, SESSION, 1, "completed", 1, ANSWER)
NEXT_RAN = Run(NEXT_ID, SECOND, SESSION, 2, "completed", 1, "Yes.")
FACTS = Facts((ROW, NEXT_ROW), (RAN, NEXT_RAN), {ID: LOG}, (Asked((FIRST,)), Asked((FIRST, SECOND))), {"parked": 0})


def case(entries: tuple[Entry, ...] = ENTRIES, facts: Facts = FACTS) -> Case:
    return Case(entries, facts)


def with_rows(*rows: Row) -> Case:
    return case(facts=replace(FACTS, rows=rows))


def with_runs(*runs: Run) -> Case:
    return case(facts=replace(FACTS, runs=runs))


def with_entry(old: Entry, *new: Entry) -> Case:
    place = ENTRIES.index(old)
    return case(entries=(*ENTRIES[:place], *new, *ENTRIES[place + 1 :]))


def with_frames(frames: list[Frame], log: tuple[tuple[str, str], ...] = ()) -> Case:
    entries = tuple(replace(one, frames=written(frames)) if one is STREAM else one for one in ENTRIES)
    return case(entries, replace(FACTS, logs={ID: log} if log else {}))


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert check(case()) == []


def test_an_unknown_attempt_that_nobody_settled_may_have_come_to_nothing() -> None:
    settled = tuple(one for one in ENTRIES if one is not OK_NEXT)
    unknown = replace(OK_NEXT, outcome=Outcome.UNKNOWN, request_id="", session_id="")
    facts = replace(FACTS, rows=(ROW,), runs=(RAN,), calls=(Asked((FIRST,)),))
    assert check(case((*settled, unknown), facts)) == []
    assert check(case((*settled, unknown))) == [], "or to something"


def test_a_gap_that_a_resync_owns_up_to_is_none() -> None:
    told = frame("1-4", "CUSTOM", **resync([("m", ANSWER)]))
    assert check(with_frames([FRAMES[0], told, FRAMES[-1]])) == []


def test_an_end_that_came_from_the_row_may_have_another_cursor_than_the_log_s() -> None:
    assert check(with_frames(FRAMES, (*LOG[:-1], ("3-0", "RUN_FINISHED")))) == []


def test_who_gave_up_before_the_end_was_kept_from_nothing() -> None:
    early = {one: replace(one, at=1.5, outcome=Outcome.UNKNOWN) for one in (STREAM, RESULT)}
    assert check(case(tuple(early.get(one, one) for one in ENTRIES))) == []


def test_a_stream_that_goes_on_in_a_later_epoch_is_whole() -> None:
    later = [
        frame("2-1", "TEXT_MESSAGE_END", messageId="m"),
        frame("2-2", "CUSTOM", name="reset", value={}),
        frame("2-3", "MESSAGES_SNAPSHOT", messages=[]),
        frame("2-4", "TEXT_MESSAGE_START", messageId="n", role="assistant"),
        frame("2-5", "TEXT_MESSAGE_CONTENT", messageId="n", delta=ANSWER),
        frame("2-6", "TEXT_MESSAGE_END", messageId="n"),
        frame("3-0", "RUN_FINISHED", threadId=SESSION, runId=ID, **ENDED),
    ]
    frames = [*FRAMES[:3], *later]
    assert check(with_frames(frames, tuple((str(one.cursor), one.type) for one in frames))) == []


def another_answer() -> Case:
    rows = (replace(ROW, answer="no"), NEXT_ROW)
    entries = tuple(one for one in ENTRIES if one.kind is Kind.ASK)
    return case(entries, replace(FACTS, rows=rows, runs=(replace(RAN, answer="no"), NEXT_RAN)))


def gone_wrong(row: Row) -> Row:
    return replace(row, status="failed", answer=None)


PLANTED: dict[str, tuple[Fault, Callable[[], Case]]] = {
    "accepted and gone": (Fault.LOST, lambda: with_rows(ROW)),
    "accepted and never ended": (Fault.LOST, lambda: with_rows(replace(ROW, status="running"), NEXT_ROW)),
    "ended without a run": (Fault.LOST, lambda: with_runs(RAN)),
    "an end that nobody was told": (Fault.LOST, lambda: with_entry(RESULT, replace(RESULT, outcome=Outcome.UNKNOWN))),
    "one key, two requests": (
        Fault.DUPLICATED,
        lambda: with_entry(UNKNOWN, replace(OK, request_id=NEXT_ID)),
    ),
    "stored twice": (Fault.DUPLICATED, lambda: with_rows(ROW, replace(NEXT_ROW, content=FIRST), NEXT_ROW)),
    "stored under another id": (
        Fault.DUPLICATED,
        lambda: with_entry(OK, replace(OK, request_id="01a1fecb-b2d2-7666-ab5d-f0daf12cc0ff")),
    ),
    "two services, two ends": (Fault.DUPLICATED, lambda: with_runs(replace(RAN, status="failed"), NEXT_RAN)),
    "two services, two answers": (Fault.DUPLICATED, lambda: with_runs(replace(RAN, answer="no"), NEXT_RAN)),
    "said twice in the conversation": (Fault.DUPLICATED, lambda: with_runs(replace(RAN, said=2), NEXT_RAN)),
    "told another end": (Fault.DUPLICATED, lambda: with_entry(RESULT, replace(RESULT, state="failed"))),
    "told another answer": (Fault.DUPLICATED, lambda: with_entry(RESULT, replace(RESULT, answer="no"))),
    "refused and stored": (
        Fault.UNEXPECTED,
        lambda: with_rows(ROW, NEXT_ROW, replace(NEXT_ROW, content=REFUSED, session_id="s", turn=1)),
    ),
    "refused without a reason": (Fault.UNEXPECTED, lambda: with_entry(REFUSAL, replace(REFUSAL, status=422))),
    "told that nothing was done": (
        Fault.PROMISE,
        lambda: with_entry(ASK, ASK, replace(OK, at=1.2, outcome=Outcome.UNKNOWN, status=503, said=DENIED)),
    ),
    "never asked": (Fault.UNEXPECTED, lambda: with_rows(ROW, NEXT_ROW, replace(ROW, content="x", session_id="s"))),
    "a run of nothing": (Fault.UNEXPECTED, lambda: with_runs(RAN, NEXT_RAN, replace(RAN, execution_id="x"))),
    "somebody else's answer": (Fault.WRONG, another_answer),
    "no answer": (
        Fault.UNANSWERED,
        lambda: case(
            facts=replace(
                FACTS, rows=(ROW, gone_wrong(NEXT_ROW)), runs=(RAN, replace(NEXT_RAN, status="failed", answer=None))
            )
        ),
    ),
    "a turn left out": (Fault.ORDER, lambda: with_rows(ROW, replace(NEXT_ROW, turn=3))),
    "a turn twice": (Fault.ORDER, lambda: with_rows(ROW, replace(NEXT_ROW, turn=1))),
    "run as another turn": (Fault.ORDER, lambda: with_runs(RAN, replace(NEXT_RAN, turn=3))),
    "asked before its turn": (
        Fault.ORDER,
        lambda: case(facts=replace(FACTS, calls=(Asked((SECOND,)), Asked((FIRST,))))),
    ),
    "asked out of order": (Fault.ORDER, lambda: case(facts=replace(FACTS, calls=(Asked((SECOND, FIRST)),)))),
    "a frame left out": (Fault.STREAM, lambda: with_frames([*FRAMES[:2], *FRAMES[3:]])),
    "a frame twice": (Fault.STREAM, lambda: with_frames([*FRAMES[:3], FRAMES[2], *FRAMES[3:]])),
    "two frames the wrong way round": (
        Fault.STREAM,
        lambda: with_frames([*FRAMES[:2], FRAMES[3], FRAMES[2], *FRAMES[4:]]),
    ),
    "another text": (
        Fault.STREAM,
        lambda: with_frames([*FRAMES[:3], frame("1-4", "TEXT_MESSAGE_CONTENT", messageId="m", delta="!"), *FRAMES[4:]]),
    ),
    "two ends": (Fault.STREAM, lambda: with_frames([*FRAMES, frame("3-0", "RUN_ERROR", message="no", code="x")])),
    "no end": (Fault.STREAM, lambda: with_frames(FRAMES[:-1])),
    "another end": (
        Fault.STREAM,
        lambda: with_frames([*FRAMES[:-1], frame("2-0", "RUN_ERROR", message="no", code="x")]),
    ),
    "a beginning that is not the first": (Fault.STREAM, lambda: with_frames(FRAMES[1:])),
    "spliced": (
        Fault.STREAM,
        lambda: with_frames(
            [
                *FRAMES[:3],
                frame("2-5", "TEXT_MESSAGE_CONTENT", messageId="m", delta="two"),
                frame("3-0", "RUN_FINISHED", threadId=SESSION, runId=ID, **ENDED),
            ]
        ),
    ),
    "less than the log": (Fault.STREAM, lambda: with_frames(FRAMES, (*LOG[:-1], ("1-6", "CUSTOM"), LOG[-1]))),
    "a stream nobody could finish": (
        Fault.STREAM,
        lambda: with_entry(STREAM, replace(STREAM, outcome=Outcome.UNKNOWN)),
    ),
    "a stream of no request": (Fault.STREAM, lambda: with_entry(STREAM, replace(STREAM, request_id="x"))),
    "two ends in the log": (
        Fault.STREAM,
        lambda: case(facts=replace(FACTS, logs={NEXT_ID: (*LOG, ("3-0", "RUN_ERROR"))})),
    ),
    "no end in the log": (Fault.STREAM, lambda: case(facts=replace(FACTS, logs={NEXT_ID: LOG[:-1]}))),
    "a parked event": (Fault.LEFT, lambda: case(facts=replace(FACTS, leftovers={"parked": 1}))),
    "a frame still due": (Fault.LEFT, lambda: with_runs(replace(RAN, untold=True), NEXT_RAN)),
    "a record that was changed": (
        Fault.RECORD,
        lambda: case(facts=replace(FACTS, broken_records=("request_manager, number 4: it was changed",))),
    ),
    "a cancel twice on record": (Fault.RECORD, lambda: case(facts=replace(FACTS, cancels={ID: 2}))),
    "a cancel that is not on record": (Fault.RECORD, lambda: with_rows(replace(ROW, status="cancelled"), NEXT_ROW)),
    "a run still held": (Fault.LEFT, lambda: with_runs(replace(RAN, held=True), NEXT_RAN)),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_found(planted: str) -> None:
    fault, made = PLANTED[planted]
    found = check(made())
    assert fault in {finding.fault for finding in found}, found
    assert all(finding.found for finding in found)


def test_every_kind_of_fault_was_planted() -> None:
    assert {fault for fault, _ in PLANTED.values()} == set(Fault) - {Fault.GOAL}


def test_recovery_counts_from_the_fault_to_what_began_after_it_and_to_what_it_stranded() -> None:
    fault = Entry(1.5, 0, Kind.FAULT, Outcome.BEGUN, said="kill -9")
    [recovery] = recoveries(case((*ENTRIES, fault)))
    assert recovery.what == "kill -9"
    assert recovery.first_ok == pytest.approx(1.6), "the second request was the first to be asked after it"
    assert recovery.stranded == pytest.approx(0.5), "the first had been accepted before it and ended after it"


def test_a_fault_that_stranded_nothing_has_no_recovery() -> None:
    [recovery] = recoveries(case((*ENTRIES, Entry(9.0, 0, Kind.FAULT, Outcome.BEGUN))))
    assert (recovery.first_ok, recovery.stranded) == (None, None)

"""What may become of a dead letter, decided in one transaction with its row, its audit entry and what is remembered.

Replaying is a change of state and nothing more: the inbox's own retry, or the outbox's own sweep, does the rest from
the stored bytes, so a crash leaves the letter dead or on its way. A letter that asks for a run is different: its owner
was told a failure, so the old request may not come back. Whoever replays it first has request-manager accept a new
request, and then tells which one.
"""

from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC
from typing import Final
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import RowMapping, TextClause

from durable_work import metrics
from durable_work.audit import Actor, Entry, record
from durable_work.dead_letters.queries import BOXES, COUNT, LIST, SETTLE, SETTLED, Box
from shared_clients.postgres import Database, Tx
from shared_models.audit import Action
from shared_models.catalog import EVENTS, REQUEST_CREATED
from shared_models.dead_letters import (
    OPERATE_FLEET,
    DeadLetter,
    LetterContent,
    LetterQuery,
    Settled,
    parse_cursor,
    parse_letter_id,
)
from shared_models.envelope import MAX_DATA, Envelope
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal

NOBODY: Final = ""
"""The tenant of an event that cannot be read."""
_SHOWN: Final = 200
"""Characters of what a stranger may have written, where a list shows it."""


class DeadLetters:
    """The dead letters of one service.

    Args:
        database: its schema.
        service: its name, which is also its inbox's consumer.
    """

    def __init__(self, database: Database, service: str) -> None:
        self._database = database
        self._service = service

    async def list(self, who: Principal, wanted: LetterQuery) -> Sequence[DeadLetter]:
        """Return the letters that `who` may see, the last that died first."""
        before, letter = parse_cursor(wanted.before) if wanted.before else (None, None)
        async with self._database.autocommit() as tx:
            rows = await tx.rows(
                LIST,
                service=self._service,
                tenants=_tenants(who),
                state=wanted.state,
                type=wanted.type,
                since=wanted.since,
                before=before,
                before_letter=letter,
                most=wanted.limit,
            )
        return [self._view(row) for row in rows]

    async def show(self, who: Principal, letter: str, *, content: bool) -> DeadLetter:
        """Return one letter; with its headers and bytes that is on record.

        Raises:
            Problem: UNKNOWN_DEAD_LETTER.
        """
        async with self._database.transaction() as tx:
            row = await self._find(tx, who, letter)
            if row is None:
                raise _unknown(letter)
            view = self._view(row)
            if not content:
                return view
            await _note(tx, who, Action.DEAD_LETTER_READ, view)
        original = LetterContent(
            attributes={name: str(value) for name, value in row["attributes"].items()},
            data_base64=b64encode(row["data"]).decode(),
        )
        return view.model_copy(update={"content": original})

    async def replay(self, who: Principal, letter: str, became: UUID | None) -> Settled:
        """Have a letter tried again, or mark it as having become a new request; twice is the same as once.

        Args:
            who: the operator.
            letter: its id.
            became: the new request, where the letter is a request and has been accepted anew.

        Raises:
            Problem: UNKNOWN_DEAD_LETTER, NOT_REPLAYABLE, NOT_DEAD.
        """
        done = Settled(id=letter, outcome="replayed", request_id=became)
        async with self._database.transaction() as tx:
            row = await self._find(tx, who, letter)
            if row is not None and row["state"] == "dead":
                event = _event(row)
                if event.type == REQUEST_CREATED.name and became is None:
                    return Settled(id=letter, outcome="needs_request", request_id=event.correlationid)
                box = _box(letter)
                if await self._change(tx, box.end if became else box.again, row):
                    return await self._settle(tx, who, self._view(row), done=done)
            return await self._as_before(tx, who, letter, done)

    async def discard(self, who: Principal, letter: str, reason: str) -> Settled:
        """Give a letter up for good: its bytes go; who did it and why stays.

        Raises:
            Problem: UNKNOWN_DEAD_LETTER, NOT_DEAD.
        """
        done = Settled(id=letter, outcome="discarded")
        async with self._database.transaction() as tx:
            row = await self._find(tx, who, letter)
            if row is not None and await self._change(tx, _box(letter).end, row):
                return await self._settle(tx, who, self._view(row), done=done, reason=reason)
            return await self._as_before(tx, who, letter, done)

    async def count(self) -> None:
        """Show how many letters wait for somebody."""
        async with self._database.autocommit() as tx:
            row = await tx.row(COUNT)
        metrics.DEAD_LETTERS.labels(self._service).set(row["dead"] if row else 0)

    async def _find(self, tx: Tx, who: Principal, letter: str) -> RowMapping | None:
        named = parse_letter_id(letter)
        if named is None or named[0] != self._service:
            return None
        return await tx.row(BOXES[named[1]].find, service=self._service, key=named[2], tenants=_tenants(who))

    async def _change(self, tx: Tx, statement: TextClause, row: RowMapping) -> bool:
        key = {"service": self._service, "source": row["source"], "event_id": row["event_id"]}
        return await tx.run(statement, **key) == 1

    async def _settle(
        self, tx: Tx, who: Principal, letter: DeadLetter, *, done: Settled, reason: str | None = None
    ) -> Settled:
        """Remember what became of a letter, and put it on record."""
        request = None if done.request_id is None else str(done.request_id)
        await tx.run(
            SETTLE,
            letter=letter.id,
            tenant=letter.tenant,
            outcome=done.outcome,
            request_id=done.request_id,
            person=Actor.of(who).person,
            reason=reason,
        )
        action = Action.DEAD_LETTER_REPLAYED if reason is None else Action.DEAD_LETTER_DISCARDED
        await _note(tx, who, action, letter, reason=reason, request_id=request)
        return done

    async def _as_before(self, tx: Tx, who: Principal, letter: str, wanted: Settled) -> Settled:
        """Answer for a letter that is not dead: as the first time, or with a problem that says what became of it."""
        row = await tx.row(SETTLED, letter=letter, tenants=_tenants(who))
        if row is None:
            raise _unknown(letter) if await self._find(tx, who, letter) is None else _parked(letter)
        if row["outcome"] != wanted.outcome:
            why = f" ({row['reason']})" if row["reason"] else ""
            when = row["settled_at"].astimezone(UTC).isoformat(timespec="seconds")
            raise Problem(Problems.NOT_DEAD, f"It was {row['outcome']} at {when} by {row['person']}{why}.")
        return wanted.model_copy(update={"request_id": row["request_id"]})

    def _view(self, row: RowMapping) -> DeadLetter:
        attributes = row["attributes"]
        return DeadLetter(
            id=row["letter"],
            service=self._service,
            box=row["box"],
            state=row["state"],
            type=str(row["type"])[:_SHOWN],
            source=str(row["source"])[:_SHOWN],
            event_id=str(row["event_id"])[:_SHOWN],
            tenant=row["tenant"],
            subject=attributes.get("subject") and str(attributes["subject"])[:_SHOWN],
            correlation_id=attributes.get("correlationid") and str(attributes["correlationid"])[:_SHOWN],
            reason=row["reason"],
            attempts=row["attempts"],
            first_seen=row["first_seen"],
            died_at=row["died_at"],
            size=row["size"],
            malformed=_fault(row) is not None,
        )


def _tenants(who: Principal) -> list[str]:
    """Return the tenants whose letters somebody may see."""
    return [who.tenant, NOBODY] if OPERATE_FLEET in who.scopes else [who.tenant]


def _box(letter: str) -> Box:
    named = parse_letter_id(letter)
    assert named is not None, "it was found by its id"
    return BOXES[named[1]]


def _event(row: RowMapping) -> Envelope:
    """Return the event of a letter that another try might help.

    Raises:
        Problem: NOT_REPLAYABLE, where none ever can.
    """
    fault = _fault(row)
    if fault is not None:
        raise Problem(Problems.NOT_REPLAYABLE, f"{fault}. Discard it once its sender is mended.")
    return Envelope.parse(row["attributes"], b"")


def _fault(row: RowMapping) -> str | None:
    """Say why no try can ever succeed with an event; what its data holds is its consumer's matter."""
    try:
        event = Envelope.parse(row["attributes"], b"")
    except ValidationError:
        return "It is no event: its attributes are not those of one"
    if row["tenant"] == NOBODY:
        return "It could not be read when it came, so nobody knows whose it is"
    if row["size"] > MAX_DATA:
        return f"Its data has {row['size']} bytes; an event has at most {MAX_DATA}"
    if event.type in EVENTS and event.source.removeprefix("/flotilla/") not in EVENTS[event.type].producers:
        return f"Its source {event.source[:_SHOWN]} may not write events of its type"
    return None


def _unknown(letter: str) -> Problem:
    return Problem(Problems.UNKNOWN_DEAD_LETTER, f"There is no dead letter {letter[:_SHOWN]} that you may see.")


def _parked(letter: str) -> Problem:
    return Problem(Problems.NOT_DEAD, f"{letter} has not been given up: it is tried again by itself.")


async def _note(tx: Tx, who: Principal, action: Action, letter: DeadLetter, **facts: str | None) -> None:
    """Put on record what somebody did to a letter; of one that is nobody's, in their own tenant."""
    told = {"type": letter.type, "event_id": letter.event_id, "source": letter.source, **facts}
    details = {name: fact for name, fact in told.items() if fact is not None}
    await record(tx, Entry(letter.tenant or who.tenant, Actor.of(who), action, letter.id, details))

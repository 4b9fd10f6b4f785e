"""Replaying and discarding a dead letter, each in one transaction with the audit entry and the remembered outcome.

A replay only changes the state of the row. The inbox's retry or the outbox's sweep then handles the stored bytes, so
after a crash the letter is either dead or on its way.

The letter of a `request.created` is replayed differently, because the request's owner was told that it failed. The
first call answers `needs_request`. The gateway then has request-manager accept a new request, and calls again with the
new request's id.
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
from durable_work.dead_letters.queries import (
    COUNT_DEAD,
    LIST_LETTERS,
    LOAD_SETTLEMENT,
    STATEMENTS,
    UPSERT_SETTLEMENT,
    LetterStatements,
)
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

NO_TENANT: Final = ""
"""The tenant of a letter whose event is malformed."""
_SHOWN: Final = 200
"""Characters that a list shows of a text that an unknown sender may have written."""


class DeadLetters:
    """The dead letters of one service.

    Args:
        database: the service's schema.
        service: the service's name, which is also the consumer of its inbox.
    """

    def __init__(self, database: Database, service: str) -> None:
        self._database = database
        self._service = service

    async def list(self, caller: Principal, query: LetterQuery) -> Sequence[DeadLetter]:
        """Return the letters that the caller may see; the letter that died last comes first."""
        before, before_letter = parse_cursor(query.before) if query.before else (None, None)
        async with self._database.autocommit() as tx:
            rows = await tx.rows(
                LIST_LETTERS,
                service=self._service,
                tenants=_visible_tenants(caller),
                state=query.state,
                type=query.type,
                since=query.since,
                before=before,
                before_letter=before_letter,
                limit=query.limit,
            )
        return [self._view(row) for row in rows]

    async def show(self, caller: Principal, letter: str, *, content: bool) -> DeadLetter:
        """Return one letter; reading its content, the headers and bytes, leaves an audit entry.

        Raises:
            Problem: UNKNOWN_DEAD_LETTER.
        """
        async with self._database.transaction() as tx:
            row = await self._load(tx, caller, letter)
            if row is None:
                raise _unknown(letter)
            view = self._view(row)
            if not content:
                return view
            await _record_action(tx, caller, Action.DEAD_LETTER_READ, view)
        original = LetterContent(
            attributes={name: str(value) for name, value in row["attributes"].items()},
            data_base64=b64encode(row["data"]).decode(),
        )
        return view.model_copy(update={"content": original})

    async def replay(self, caller: Principal, letter: str, new_request: UUID | None) -> Settled:
        """Have the event of a letter tried again, or close the letter for the new request in its place.

        A second replay of the same letter changes nothing and has the same answer.

        Args:
            caller: the operator.
            letter: the letter's id.
            new_request: the request that was accepted in the letter's place, for a letter of `request.created`.

        Raises:
            Problem: UNKNOWN_DEAD_LETTER, NOT_REPLAYABLE, NOT_DEAD.
        """
        settlement = Settled(id=letter, outcome="replayed", request_id=new_request)
        async with self._database.transaction() as tx:
            row = await self._load(tx, caller, letter)
            if row is not None and row["state"] == "dead":
                event = _replayable_event(row)
                if event.type == REQUEST_CREATED.name and new_request is None:
                    return Settled(id=letter, outcome="needs_request", request_id=event.correlationid)
                statements = _statements_for(letter)
                if await self._change(tx, statements.close if new_request else statements.retry, row):
                    return await self._settle(tx, caller, self._view(row), settlement=settlement)
            return await self._earlier_settlement(tx, caller, letter, settlement)

    async def discard(self, caller: Principal, letter: str, reason: str) -> Settled:
        """Give a letter up for good: its bytes are deleted, and the caller and the reason stay on record.

        Raises:
            Problem: UNKNOWN_DEAD_LETTER, NOT_DEAD.
        """
        settlement = Settled(id=letter, outcome="discarded")
        async with self._database.transaction() as tx:
            row = await self._load(tx, caller, letter)
            if row is not None and await self._change(tx, _statements_for(letter).close, row):
                return await self._settle(tx, caller, self._view(row), settlement=settlement, reason=reason)
            return await self._earlier_settlement(tx, caller, letter, settlement)

    async def count(self) -> None:
        """Set the metric of dead letters."""
        async with self._database.autocommit() as tx:
            row = await tx.row(COUNT_DEAD)
        metrics.DEAD_LETTERS.labels(self._service).set(row["dead"] if row else 0)

    async def _load(self, tx: Tx, caller: Principal, letter: str) -> RowMapping | None:
        parsed = parse_letter_id(letter)
        if parsed is None or parsed.service != self._service:
            return None
        statement = STATEMENTS[parsed.table].load
        return await tx.row(statement, service=self._service, key=parsed.key, tenants=_visible_tenants(caller))

    async def _change(self, tx: Tx, statement: TextClause, row: RowMapping) -> bool:
        """Run a statement on a letter's row, and return False where the letter is not dead any more."""
        key = {"service": self._service, "source": row["source"], "event_id": row["event_id"]}
        return await tx.run(statement, **key) == 1

    async def _settle(
        self, tx: Tx, caller: Principal, letter: DeadLetter, *, settlement: Settled, reason: str | None = None
    ) -> Settled:
        """Remember the outcome of a letter, and write its audit entry."""
        request_id = settlement.request_id
        await tx.run(
            UPSERT_SETTLEMENT,
            letter=letter.id,
            tenant=letter.tenant,
            outcome=settlement.outcome,
            request_id=request_id,
            person=Actor.of(caller).person,
            reason=reason,
        )
        action = Action.DEAD_LETTER_REPLAYED if reason is None else Action.DEAD_LETTER_DISCARDED
        request = None if request_id is None else str(request_id)
        await _record_action(tx, caller, action, letter, reason=reason, request_id=request)
        return settlement

    async def _earlier_settlement(self, tx: Tx, caller: Principal, letter: str, wanted: Settled) -> Settled:
        """Return the first answer again, for a letter that was settled in the same way before.

        Raises:
            Problem: NOT_DEAD where the letter was settled in the other way or is parked; UNKNOWN_DEAD_LETTER.
        """
        row = await tx.row(LOAD_SETTLEMENT, letter=letter, tenants=_visible_tenants(caller))
        if row is None:
            raise _unknown(letter) if await self._load(tx, caller, letter) is None else _parked(letter)
        if row["outcome"] != wanted.outcome:
            reason = f" ({row['reason']})" if row["reason"] else ""
            time = row["settled_at"].astimezone(UTC).isoformat(timespec="seconds")
            raise Problem(Problems.NOT_DEAD, f"The letter was {row['outcome']} at {time} by {row['person']}{reason}.")
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
            malformed=_lasting_fault(row) is not None,
        )


def _visible_tenants(caller: Principal) -> list[str]:
    """Return the tenants whose letters the caller may see."""
    return [caller.tenant, NO_TENANT] if OPERATE_FLEET in caller.scopes else [caller.tenant]


def _statements_for(letter: str) -> LetterStatements:
    parsed = parse_letter_id(letter)
    assert parsed is not None, "the letter was found by its id"
    return STATEMENTS[parsed.table]


def _replayable_event(row: RowMapping) -> Envelope:
    """Return the event of a letter, without its data.

    Raises:
        Problem: NOT_REPLAYABLE, where no further try can succeed.
    """
    fault = _lasting_fault(row)
    if fault is not None:
        raise Problem(Problems.NOT_REPLAYABLE, f"{fault}. Repair the event's sender, and discard the letter.")
    return Envelope.parse(row["attributes"], b"")


def _lasting_fault(row: RowMapping) -> str | None:
    """Return why no further try of an event can succeed; None where one can, as far as its attributes tell.

    The data is not parsed here: its consumer may be able to read it after an update.
    """
    try:
        event = Envelope.parse(row["attributes"], b"")
    except ValidationError:
        return "The event has missing or malformed attributes"
    if row["size"] > MAX_DATA:
        return f"The event's data has {row['size']} bytes; an event has at most {MAX_DATA}"
    if event.type in EVENTS and not EVENTS[event.type].may_come_from(event.source):
        return f"The event's source {event.source[:_SHOWN]} may not write events of its type"
    if row["tenant"] == NO_TENANT:
        return "The event was malformed or its source was not believed when it came, so its tenant is unknown"
    return None


def _unknown(letter: str) -> Problem:
    return Problem(Problems.UNKNOWN_DEAD_LETTER, f"There is no dead letter {letter[:_SHOWN]} that you may see.")


def _parked(letter: str) -> Problem:
    detail = f"The letter {letter} is parked, not dead: its service tries the event again by itself."
    return Problem(Problems.NOT_DEAD, detail)


async def _record_action(tx: Tx, caller: Principal, action: Action, letter: DeadLetter, **facts: str | None) -> None:
    """Write the audit entry of an operator's action; without a tenant of its own, a letter's is the caller's."""
    details = {"type": letter.type, "event_id": letter.event_id, "source": letter.source, **facts}
    stated = {name: fact for name, fact in details.items() if fact is not None}
    await record(tx, Entry(letter.tenant or caller.tenant, Actor.of(caller), action, letter.id, stated))

"""The way of one delivery: read the event, react to it in a transaction, and record the outcome.

A failure to ask the database is never taken for "this event was handled before": it raises `Transient`, and the bus
delivers the message again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Self

import structlog
from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy import RowMapping

from durable_work import metrics
from durable_work.failpoints import Failpoint
from durable_work.inbox import queries
from durable_work.inbox.outcomes import (
    MAX_ATTEMPTS,
    Dead,
    Done,
    Duplicate,
    Ignored,
    NewerVersion,
    Outcome,
    Parked,
    ParkedRow,
    Untrusted,
    describe_error,
    is_bug,
    outcome_of_failure,
    pause_after,
)
from durable_work.inbox.reactions import Reaction, describe_faults, parse_data, type_family
from shared_clients.bus.port import Message
from shared_clients.failpoints import reached
from shared_clients.postgres import Database, Tx
from shared_clients.tracing import consumer_span
from shared_models.catalog import EVENTS
from shared_models.envelope import Envelope

log = structlog.get_logger()

RETRY_BATCH: Final = 20
MAX_KEY_BYTES: Final = 512
"""The length up to which a source or id is stored as it is: a row of a Postgres index has at most about 2,700 bytes."""
MAX_REASON: Final = 1000
NO_TENANT: Final = ""
"""The tenant of a malformed or untrusted event, whose own `tenantid` is not believed."""
UNTRUSTED_PREFIX: Final = "untrusted:"
"""Begins the key of an untrusted event, so that a forged id never takes the row of the event that it copies."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try to handle an event.

    Attributes:
        message: the attributes and data, from the bus or from the parked row.
        event: the parsed message; None where it is not a valid event.
        fault: the reason why the message is not a valid event.
        row: the parked row of a retry; None for a message from the bus.
    """

    message: Message
    event: Envelope | None
    fault: str = ""
    row: ParkedRow | None = None

    @classmethod
    def of(cls, message: Message, row: ParkedRow | None = None) -> Self:
        try:
            return cls(message, Envelope.parse(message.attributes, message.data), row=row)
        except ValidationError as error:
            return cls(message, None, f"not a valid event: {describe_faults(error)}", row)

    @classmethod
    def of_row(cls, row: RowMapping) -> Self:
        """Return the retry of a parked row.

        An event that was valid when it came can be malformed here: its NUL characters were not stored, or this release
        is stricter.
        """
        message = Message(row["topic"], row["key"], row["attributes"], row["data"], row["origin"])
        return cls.of(message, ParkedRow(row["source"], row["id"], row["attempts"], row["age"]))


class Inbox:
    """The events of one consumer.

    Args:
        database: the consumer's schema.
        consumer: the service's name in the catalogue.
        reactions: one for each type of event that the catalogue has the service consume.

    Raises:
        ValueError: a type has no reaction, or a reaction's type is not for this consumer.
    """

    def __init__(self, database: Database, consumer: str, reactions: Iterable[Reaction]) -> None:
        self._database = database
        self._consumer = consumer
        self._reactions: Mapping[str, Reaction] = {reaction.event.name: reaction for reaction in reactions}
        self._families = frozenset(type_family(name) for name in self._reactions)
        expected = {event.name for event in EVENTS.values() if consumer in event.consumers}
        if expected != set(self._reactions):
            msg = f"{consumer} has to react to {sorted(expected)}, and reacts to {sorted(self._reactions)}"
            raise ValueError(msg)

    async def consume(self, message: Message) -> None:
        """Handle a message from the bus, which may be acknowledged when this returns.

        Raises:
            Transient: the database does not answer; the bus has to deliver the message again.
        """
        delivery = Delivery.of(message)
        outcome = await self._handle(delivery)
        try:
            await self._record(delivery, outcome)
        except Exception as error:  # a consumer's edge: a failing `on_dead` parks the event, and its tries are counted
            if not isinstance(outcome, Dead) or delivery.event is None:  # only `on_dead` of an event can be tried again
                raise
            if is_bug(error):
                log.exception("event_failed", event_id=delivery.event.id, event_type=delivery.event.type)
            await self._record(delivery, Parked(describe_error(error), pause_after(None)))
        if not isinstance(outcome, Ignored):
            reached(Failpoint.AFTER_COMMIT_BEFORE_ACK)

    async def retry(self) -> int:
        """Handle a batch of parked events that are due, and return how many there were.

        Raises:
            Exception: an error of a reaction's `on_dead`; the row is claimed again in 30 seconds.
        """
        async with self._database.autocommit() as tx:
            rows = await tx.rows(queries.CLAIM_PARKED, consumer=self._consumer, batch=RETRY_BATCH)
        for row in rows:
            delivery = Delivery.of_row(row)
            await self._record(delivery, await self._handle(delivery))
        return len(rows)

    async def delete_expired_events(self) -> int:
        """Delete the rows of done events that cannot come again, and return how many there were."""
        async with self._database.autocommit() as tx:
            return await tx.run(queries.DELETE_EXPIRED_EVENTS, consumer=self._consumer)

    async def _handle(self, delivery: Delivery) -> Outcome:
        """React to an event; a failure becomes an outcome that is still to be recorded."""
        event, row = delivery.event, delivery.row
        if event is None:
            return Dead(delivery.fault)
        if row is None and type_family(event.type) not in self._families:
            return Ignored()
        reaction = self._reactions.get(event.type)
        if reaction is not None and not reaction.event.may_come_from(event.source):
            return Untrusted(f"the source {event.source} may not write {event.type}")
        try:
            return await self._react(event, row)
        except Exception as error:  # a consumer's edge: a bug parks the event with its bytes, or ends its tries
            if is_bug(error):
                log.exception("event_failed", event_id=event.id, event_type=event.type)
            return outcome_of_failure(error, row)

    async def _react(self, event: Envelope, row: ParkedRow | None) -> Done | Duplicate:
        """Mark an event done and react to it, in one transaction."""
        reaction = self._reactions.get(event.type)
        if reaction is None:
            msg = f"the type {event.type} is of a version that this release does not read"
            raise NewerVersion(msg)
        data = parse_data(reaction, event)
        with consumer_span(event.attributes(), f"process {event.type}"):
            async with self._database.transaction() as tx:
                if not await self._mark_done(tx, event, row):
                    return Duplicate()
                await reaction.react(tx, event, data)
                reached(Failpoint.AFTER_EFFECT_BEFORE_COMMIT)
        return Done()

    async def _record(self, delivery: Delivery, outcome: Outcome) -> None:
        """Count an outcome, and store it where the transaction of the effect has not done so."""
        match outcome:
            case Done():
                self._count("done")
            case Duplicate():
                self._count("duplicate")
            case Ignored():
                self._count("unknown")
            case Parked():
                await self._park(delivery, outcome)
            case Dead() | Untrusted():
                await self._mark_dead(delivery, outcome)

    async def _mark_done(self, tx: Tx, event: Envelope, row: ParkedRow | None) -> bool:
        """Mark an event done, and return whether this delivery is the first to do so."""
        if row is not None:
            changed = await tx.run(queries.MARK_PARKED_DONE, consumer=self._consumer, source=row.source, id=row.id)
        else:
            changed = await tx.run(
                queries.INSERT_DONE,
                consumer=self._consumer,
                source=_indexable(event.source),
                id=_indexable(event.id),
                tenant=event.tenantid,
                type=event.type,
            )
        return changed == 1

    async def _park(self, delivery: Delivery, parked: Parked) -> None:
        async with self._database.transaction() as tx:
            if delivery.row is None:
                await self._insert_unhandled(tx, delivery, parked)
            else:
                await tx.run(
                    queries.POSTPONE_RETRY,
                    consumer=self._consumer,
                    source=delivery.row.source,
                    id=delivery.row.id,
                    pause=parked.pause,
                    error=_storable(parked.reason),
                )

    async def _mark_dead(self, delivery: Delivery, dead: Dead | Untrusted) -> None:
        """Mark an event dead, and have its reaction free the rows that wait for it.

        An untrusted event frees nothing, and its row belongs to no tenant. Nothing changes where another process has
        marked the event done or dead meanwhile.
        """
        async with self._database.transaction() as tx:
            if delivery.row is None:
                changed = await self._insert_unhandled(tx, delivery, dead)
            else:
                changed = await tx.run(
                    queries.MARK_PARKED_DEAD,
                    consumer=self._consumer,
                    source=delivery.row.source,
                    id=delivery.row.id,
                    error=_storable(dead.reason),
                    untrusted=isinstance(dead, Untrusted),
                )
            if changed and isinstance(dead, Dead):
                await self._call_on_dead(tx, delivery, dead)
        if changed and delivery.row is not None:
            self._count("dead")

    async def _call_on_dead(self, tx: Tx, delivery: Delivery, dead: Dead) -> None:
        event, row = delivery.event, delivery.row
        reaction = self._reactions.get(event.type) if event else None
        on_dead_keeps_failing = row is not None and row.attempts > MAX_ATTEMPTS + 1
        if event is not None and reaction is not None and reaction.on_dead is not None and not on_dead_keeps_failing:
            await reaction.on_dead(tx, event, _storable(dead.reason))

    async def _insert_unhandled(self, tx: Tx, delivery: Delivery, outcome: Parked | Dead | Untrusted) -> int:
        """Store a message from the bus with its bytes, and return the number of new rows: none where it has one."""
        message, event = delivery.message, delivery.event
        untrusted, state = isinstance(outcome, Untrusted), "parked" if isinstance(outcome, Parked) else "dead"
        key_prefix = UNTRUSTED_PREFIX if untrusted else ""
        attributes = {key: _without_nul(value) for key, value in message.attributes.items()}
        inserted = await tx.run(
            queries.INSERT_UNHANDLED,
            consumer=self._consumer,
            source=_indexable(attributes.get("source") or "unknown"),
            id=_indexable(
                key_prefix + (attributes.get("id") or message.origin or hashlib.sha256(message.data).hexdigest())
            ),
            tenant=event.tenantid if event and not untrusted else NO_TENANT,
            type=attributes.get("type") or "unknown",
            state=state,
            topic=message.topic,
            key=_without_nul(message.key),
            attributes=to_json(attributes).decode(),
            data=message.data,
            origin=message.origin,
            error=_storable(outcome.reason),
            pause=outcome.pause if isinstance(outcome, Parked) else timedelta(0),
        )
        self._count(state)
        error = outcome.reason[:200]
        log.warning("event_kept", state=state, event_id=attributes.get("id"), origin=message.origin, error=error)
        return inserted

    def _count(self, outcome: str) -> None:
        metrics.INBOX_EVENTS.labels(self._consumer, outcome).inc()


def _indexable(name: str) -> str:
    """Return a source or id as an index takes it: a hash stands for a text that is too long."""
    if len(name.encode()) <= MAX_KEY_BYTES:
        return name
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def _storable(reason: str) -> str:
    return _without_nul(reason[:MAX_REASON])


def _without_nul(text: str) -> str:
    """Remove the character that Postgres cannot store."""
    return text.replace("\x00", "")

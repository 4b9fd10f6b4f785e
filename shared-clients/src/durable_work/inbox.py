"""The inbox: an event changes things once, however often it comes.

The row (consumer, source, id) is written in the transaction of the effect, and the bus gets its acknowledgement after
the commit. What cannot be handled now is parked here with its bytes and tried again from here, never again through the
bus; what can never be handled is dead here, visible, with the reason. "Could not check" is an error that has the bus
deliver again; it is never taken for "seen before".
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from sqlalchemy import RowMapping

from durable_work import metrics
from durable_work.failpoints import Failpoint
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent, Transient
from shared_clients.failpoints import reached
from shared_clients.postgres import Database, Tx, sql
from shared_clients.tracing import consumer_span
from shared_models.catalog import EVENTS, EventType
from shared_models.envelope import Envelope

log = structlog.get_logger()

MAX_ATTEMPTS: Final = 8
"""Tries of an event whose handling fails; with the backoff below they span about ten minutes."""
PARKED_FOR_VERSION: Final = timedelta(hours=24)
"""How long an event of a newer version waits for the release that can read it."""
RETRY_BATCH: Final = 20
MAX_KEY: Final = 512
"""Bytes of a source or id that are stored as they are: Postgres indexes rows of at most some 2,700."""

SEEN = sql("""
    INSERT INTO inbox (consumer, source, id, tenant, type, state)
    VALUES (:consumer, :source, :id, :tenant, :type, 'done')
    ON CONFLICT DO NOTHING
""")
KEEP = sql("""
    INSERT INTO inbox (consumer, source, id, tenant, type, state, topic, key, attributes, data, origin, error,
                       next_attempt_at, died_at)
    VALUES (:consumer, :source, :id, :tenant, :type, :state, :topic, :key, CAST(:attributes AS jsonb), :data, :origin,
            :error, now() + :pause, CASE WHEN CAST(:state AS text) = 'dead' THEN now() END)
    ON CONFLICT DO NOTHING
""")
CLAIM = sql("""
    UPDATE inbox SET attempts = attempts + 1, next_attempt_at = now() + interval '30 seconds'
    WHERE (consumer, source, id) IN (
        SELECT consumer, source, id FROM inbox
        WHERE consumer = :consumer AND state = 'parked' AND next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    RETURNING source, id, topic, key, attributes, data, origin, attempts, now() - seen_at AS age
""")
DONE = sql("""
    UPDATE inbox SET state = 'done', topic = NULL, key = NULL, attributes = NULL, data = NULL, error = NULL,
                     next_attempt_at = NULL
    WHERE consumer = :consumer AND source = :source AND id = :id AND state = 'parked'
""")
POSTPONE = sql("""
    UPDATE inbox SET next_attempt_at = now() + :pause, error = :error
    WHERE consumer = :consumer AND source = :source AND id = :id AND state = 'parked'
""")
BURY = sql("""
    UPDATE inbox SET state = 'dead', error = :error, next_attempt_at = NULL, died_at = now()
    WHERE consumer = :consumer AND source = :source AND id = :id AND state = 'parked'
""")
FORGET = sql("""
    DELETE FROM inbox WHERE (consumer, source, id) IN (
        SELECT consumer, source, id FROM inbox
        WHERE consumer = :consumer AND state = 'done' AND seen_at < now() - interval '8 days' LIMIT 10000
    )
""")
"""A day more than topics keep their events: what is forgotten here cannot come again."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a consumer does about one type of event.

    Attributes:
        event: the catalogue's entry.
        react: changes the consumer's rows in the given transaction; right in any order, and when a row is there.
        bury: called in the transaction that declares such an event dead, so that what waits for it is set free.
    """

    event: EventType
    react: Callable[[Tx, Envelope, Any], Awaitable[None]]
    bury: Callable[[Tx, Envelope, str], Awaitable[None]] | None = None


class _NotYet(Exception):  # noqa: N818 - an outcome
    """A known type in a version or shape that only a later release reads."""


class Inbox:
    """The events of one consumer.

    Args:
        database: the consumer's schema.
        consumer: the service's name in the catalogue.
        reactions: one for each type that the catalogue has it consume.
    """

    def __init__(self, database: Database, consumer: str, reactions: Iterable[Reaction]) -> None:
        self._database = database
        self._consumer = consumer
        self._reactions: Mapping[str, Reaction] = {reaction.event.name: reaction for reaction in reactions}
        expected = {event.name for event in EVENTS.values() if consumer in event.consumers}
        if expected != set(self._reactions):
            msg = f"{consumer} has to react to {sorted(expected)}, and reacts to {sorted(self._reactions)}"
            raise ValueError(msg)

    async def consume(self, message: Message) -> None:
        """Handle one delivery; returning means that it is safe to acknowledge.

        Raises:
            Transient: the database could not be asked; deliver it again.
        """
        try:
            event = Envelope.parse(message.attributes, message.data)
        except ValidationError as error:
            await self._keep(message, "dead", f"not a valid event: {_faults(error)}")
            return
        reaction = self._reactions.get(event.type)
        if reaction is None and _family(event.type) not in {_family(name) for name in self._reactions}:
            metrics.INBOX_EVENTS.labels(self._consumer, "unknown").inc()
            return
        try:
            await self._take(message, event, reaction)
            reached(Failpoint.AFTER_COMMIT_BEFORE_ACK)
        except _NotYet as error:
            await self._keep(message, "parked", str(error), tenant=event.tenantid, pause=timedelta(minutes=5))
        except Transient as error:
            await self._keep(message, "parked", str(error), tenant=event.tenantid, pause=timedelta(seconds=1))
        except Exception as error:  # the consumer's outermost edge: a bug parks the event with its bytes
            log.exception("event_failed", event_id=event.id, event_type=event.type)
            why = f"{type(error).__name__}: {error}"
            await self._keep(message, "parked", why, tenant=event.tenantid, pause=timedelta(seconds=1))

    async def retry(self) -> int:
        """Try the parked events that are due again, from their stored bytes; return how many there were."""
        async with self._database.autocommit() as tx:
            rows = await tx.rows(CLAIM, consumer=self._consumer, batch=RETRY_BATCH)
        for row in rows:
            await self._retry_one(row)
        return len(rows)

    async def forget(self) -> int:
        """Drop the memory of events that cannot come again, and return of how many."""
        async with self._database.autocommit() as tx:
            return await tx.run(FORGET, consumer=self._consumer)

    async def _take(self, message: Message, event: Envelope, reaction: Reaction | None) -> None:
        """React to a fresh event, or declare it dead."""
        try:
            await self._apply(event, reaction, parked=False)
        except Permanent as error:
            await self._dead_on_arrival(message, event, reaction, str(error))

    async def _apply(self, event: Envelope, reaction: Reaction | None, *, parked: bool) -> None:
        """Record and react in one transaction."""
        if reaction is None:
            msg = f"the type {event.type} is of a version that this release does not read"
            raise _NotYet(msg)
        if event.source.removeprefix("/flotilla/") not in reaction.event.producers:
            msg = f"the source {event.source} may not write {event.type}"
            raise Permanent(msg)
        data = _parse(reaction, event.data)
        with consumer_span(event.attributes(), f"process {event.type}"):
            async with self._database.transaction() as tx:
                if await self._first_time(tx, event, parked=parked):
                    await reaction.react(tx, event, data)
                    reached(Failpoint.AFTER_EFFECT_BEFORE_COMMIT)
                    metrics.INBOX_EVENTS.labels(self._consumer, "done").inc()
                else:
                    metrics.INBOX_EVENTS.labels(self._consumer, "duplicate").inc()

    async def _first_time(self, tx: Tx, event: Envelope, *, parked: bool) -> bool:
        key = {"consumer": self._consumer, "source": _fit(event.source), "id": _fit(event.id)}
        if parked:
            return await tx.run(DONE, **key) == 1
        return await tx.run(SEEN, **key, tenant=event.tenantid, type=event.type) == 1

    async def _keep(
        self,
        message: Message,
        state: str,
        error: str,
        *,
        tenant: str = "",
        pause: timedelta = timedelta(0),
        tx: Tx | None = None,
    ) -> bool:
        """Store a delivery with its bytes, and tell whether it was the first: another changes nothing.

        What a malformed event says of its tenant is not believed: it is nobody's.
        """
        if tx is None:
            async with self._database.transaction() as own:
                return await self._keep(message, state, error, tenant=tenant, pause=pause, tx=own)
        attributes = {key: value.replace("\x00", "") for key, value in message.attributes.items()}
        kept = await tx.run(
            KEEP,
            consumer=self._consumer,
            source=_fit(attributes.get("source") or "unknown"),
            id=_fit(attributes.get("id") or message.origin or hashlib.sha256(message.data).hexdigest()),
            tenant=tenant,
            type=attributes.get("type") or "unknown",
            state=state,
            topic=message.topic,
            key=message.key.replace("\x00", ""),
            attributes=to_json(attributes).decode(),
            data=message.data,
            origin=message.origin,
            error=error[:1000].replace("\x00", ""),
            pause=pause,
        )
        metrics.INBOX_EVENTS.labels(self._consumer, state).inc()
        log.warning("event_kept", state=state, event_id=attributes.get("id"), origin=message.origin, error=error[:200])
        return kept == 1

    async def _dead_on_arrival(self, message: Message, event: Envelope, reaction: Reaction | None, error: str) -> None:
        async with self._database.transaction() as tx:
            first = await self._keep(message, "dead", error, tenant=event.tenantid, tx=tx)
            if first and reaction is not None and reaction.bury is not None:
                await reaction.bury(tx, event, error)

    async def _retry_one(self, row: RowMapping) -> None:
        try:
            event = Envelope.parse(row["attributes"], row["data"])
        except ValidationError as error:  # it was one when it came: a NUL was dropped, or this release is stricter
            await self._postpone(row, None, f"not a valid event: {_faults(error)}", final=True)
            return
        reaction = self._reactions.get(event.type)
        try:
            await self._apply(event, reaction, parked=True)
        except _NotYet as error:
            await self._postpone(row, event, str(error), final=row["age"] > PARKED_FOR_VERSION)
        except Permanent as error:
            await self._postpone(row, event, str(error), final=True)
        except Exception as error:  # the consumer's outermost edge: counted tries, then dead
            log.exception("event_failed_again", event_id=event.id, attempts=row["attempts"])
            await self._postpone(row, event, f"{type(error).__name__}: {error}", final=row["attempts"] >= MAX_ATTEMPTS)

    async def _postpone(self, row: RowMapping, event: Envelope | None, error: str, *, final: bool) -> None:
        error = error[:1000].replace("\x00", "")
        key = {"consumer": self._consumer, "source": row["source"], "id": row["id"], "error": error}
        reaction = None if event is None else self._reactions.get(event.type)
        async with self._database.transaction() as tx:
            if not final:
                await tx.run(POSTPONE, **key, pause=timedelta(seconds=min(300, 2 ** row["attempts"])))
                return
            if await tx.run(BURY, **key) == 0:
                return  # done or dead already: another process had claimed it meanwhile
            given_up = row["attempts"] > MAX_ATTEMPTS + 1  # `bury` itself has failed: dead it is all the same
            if event is not None and reaction is not None and reaction.bury is not None and not given_up:
                await reaction.bury(tx, event, error)
        metrics.INBOX_EVENTS.labels(self._consumer, "dead").inc()


def _fit(name: str) -> str:
    """Return a part of an event's name as a key that an index takes: what is too long, by its hash."""
    return name if len(name.encode()) <= MAX_KEY else f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def _family(name: str) -> str:
    """Return a type without its version: `flotilla.request.created` of `flotilla.request.created.v1`."""
    return name.rpartition(".v")[0]


def _parse(reaction: Reaction, data: bytes) -> BaseModel:
    try:
        return reaction.event.data.model_validate_json(data)
    except ValidationError as error:
        if any(fault["type"] in {"union_tag_invalid", "literal_error", "enum"} for fault in error.errors()):
            msg = f"{reaction.event.name} has a member that this release does not know: {_faults(error)}"
            raise _NotYet(msg) from error
        raise Permanent(f"the data of {reaction.event.name} is not as agreed: {_faults(error)}") from error


def _faults(error: ValidationError) -> str:
    """Say where an event is wrong without repeating what it holds."""
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5])

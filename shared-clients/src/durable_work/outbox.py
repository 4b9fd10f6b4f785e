"""The outbox: an event for other services is written in the transaction that changes the state.

`publish` inserts the event's row. After the commit it hands the event to a publisher in this process, so that no event
waits for a poll. The row is deleted when the bus says that the event is safe. `sweep` publishes the events that a
crash, a full buffer or an outage left behind. Delivery is at least once, and the consumers' inboxes make the effect
once.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog
from pydantic_core import to_json

from durable_work import metrics
from durable_work.failpoints import Failpoint
from shared_clients.bus.port import Bus, Message
from shared_clients.errors import Permanent, Unconfirmed
from shared_clients.failpoints import reached
from shared_clients.loops import Tasks
from shared_clients.postgres import Database, Tx, sql
from shared_models.catalog import EVENTS
from shared_models.envelope import Envelope

log = structlog.get_logger()

IN_FLIGHT: Final = 64
"""Events that one process publishes at once; further events wait in the buffer."""
BUFFER: Final = 4096
"""Events that wait in one process for a publisher; an event that finds the buffer full is left to the sweep."""
DELETE_DELAY_SECONDS: Final = 0.05
"""How long the ids of published events are collected, so that one commit deletes many rows.

A crash in that time has the sweep publish the events again."""
SWEEP_BATCH: Final = 200
MAX_PENDING: Final = 100_000
"""Unpublished events from which on the outbox is full."""
MAX_AGE_SECONDS: Final = 900.0
"""Age of the oldest unpublished event from which on the outbox is full."""

INSERT_EVENT = sql("""
    INSERT INTO outbox (id, tenant, topic, key, attributes, data)
    VALUES (:id, :tenant, :topic, :key, CAST(:attributes AS jsonb), :data)
""")
DELETE_PUBLISHED = sql("DELETE FROM outbox WHERE id = ANY(:ids)")
CLAIM_OVERDUE = sql("""
    UPDATE outbox SET
        attempts = attempts + 1,
        next_attempt_at = now() + least(5, power(2, least(attempts, 6))) * (0.5 + random()) * interval '1 second'
    WHERE id IN (
        SELECT id FROM outbox WHERE state = 'pending' AND next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    RETURNING id, topic, key, attributes, data
""")
"""Pauses grow to a few seconds only: an outage of the bus concerns all rows, and all of them can go when it ends."""
MARK_DEAD = sql(
    "UPDATE outbox SET state = 'dead', error = :error, died_at = now() WHERE id = :id AND state = 'pending'"
)
MEASURE_PENDING = sql("""
    SELECT count(*) AS pending, (
        SELECT extract(epoch FROM now() - created_at)::float8 FROM outbox WHERE state = 'pending' ORDER BY id LIMIT 1
    ) AS oldest_age
    FROM outbox WHERE state = 'pending'
""")
"""Ids grow with time, so the primary key finds the oldest row; an index of the pending rows gives the count."""

OnDead = Callable[[Tx, Envelope, str], Awaitable[None]]
"""Called in the transaction that marks an event dead, because no transport can publish it."""


def message_of(event: Envelope) -> Message:
    """Return the message that carries an event on the bus; its topic is the catalogue's."""
    return Message(EVENTS[event.type].topic, event.partitionkey, event.attributes(), event.data)


class Outbox:
    """One service's outbox.

    Args:
        database: the service's schema.
        bus: the transport that publishes the events.
        on_dead: called when an event can never be published, so that its request can fail.
        max_pending: unpublished events from which on the outbox is full.
        max_age_seconds: age of the oldest unpublished event from which on the outbox is full.

    Attributes:
        full: whether the service should accept no new work, by the last sweep's measure. The measure is not taken for
            each request: it would cost more than the few events that come between two sweeps.
    """

    def __init__(
        self,
        database: Database,
        bus: Bus,
        on_dead: OnDead | None = None,
        *,
        max_pending: int = MAX_PENDING,
        max_age_seconds: float = MAX_AGE_SECONDS,
    ) -> None:
        self._database = database
        self._bus = bus
        self._on_dead = on_dead
        self._max_pending = max_pending
        self._max_age_seconds = max_age_seconds
        self.full = False
        self._handed_over: asyncio.Queue[Message] = asyncio.Queue(maxsize=BUFFER)
        self._published_ids: asyncio.Queue[str] = asyncio.Queue(maxsize=BUFFER)

    async def publish(self, tx: Tx, event: Envelope) -> None:
        """Write an event in the caller's transaction, and hand it over after the commit."""
        message = message_of(event)
        await tx.run(
            INSERT_EVENT,
            id=event.id,
            tenant=event.tenantid,
            topic=message.topic,
            key=message.key,
            attributes=to_json(message.attributes).decode(),
            data=message.data,
        )
        tx.after_commit(lambda: self.hand_over(message))

    def hand_over(self, message: Message) -> None:
        """Have this process publish a committed event soon; where the buffer is full, the sweep does it."""
        try:
            self._handed_over.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("outbox_buffer_full", buffer=BUFFER)

    async def sweep(self) -> int:
        """Publish the overdue events, and return how many there were; any number of processes may sweep at once.

        The next batch follows at once after a batch that was published as a whole, so that a backlog goes as fast as
        the bus takes it.
        """
        swept = 0
        while True:
            published = await self._sweep_batch()
            swept += len(published)
            if len(published) < SWEEP_BATCH or not all(published):
                return swept

    async def _sweep_batch(self) -> Sequence[bool]:
        """Publish up to a batch of overdue events, and return for each whether it is safe on the bus."""
        async with self._database.autocommit() as tx:
            rows = await tx.rows(CLAIM_OVERDUE, batch=SWEEP_BATCH)
            backlog = await tx.row(MEASURE_PENDING)
        if backlog:
            metrics.OUTBOX_PENDING.labels(self._database.schema).set(backlog["pending"])
            too_old = (backlog["oldest_age"] or 0.0) >= self._max_age_seconds
            self.full = backlog["pending"] >= self._max_pending or too_old
        if rows:
            reached(Failpoint.AFTER_SWEEP_CLAIM_BEFORE_PUBLISH)
        messages = [Message(row["topic"], row["key"], row["attributes"], row["data"]) for row in rows]
        return await asyncio.gather(*(self._send(message) for message in messages))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Publish the events that are handed over while the context is open.

        Leaving the context waits up to five seconds for the events that were handed over before; the sweep of another
        process publishes the rest.
        """
        async with Tasks() as tasks:
            tasks.start("delete published events", self._delete_published)
            for number in range(IN_FLIGHT):
                tasks.start(f"publish events {number}", self._publish_handed_over)
            try:
                yield
            finally:
                await self._drain()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._handed_over.join()
                await self._published_ids.join()
        except TimeoutError:
            log.warning("outbox_left_to_sweep", events=self._handed_over.qsize())

    async def _publish_handed_over(self) -> None:
        while True:
            message = await self._handed_over.get()
            try:
                await self._send(message)
            finally:
                self._handed_over.task_done()

    async def _send(self, message: Message) -> bool:
        """Publish an event, and return whether it is safe on the bus."""
        name = message.attributes["type"]
        reached(Failpoint.AFTER_COMMIT_BEFORE_PUBLISH)
        try:
            await self._bus.publish(message)
        except Unconfirmed as error:
            metrics.OUTBOX_PUBLISHED.labels(name, "later").inc()
            log.warning("event_not_published", event_id=message.attributes["id"], event_type=name, error=str(error))
        except Permanent as error:
            metrics.OUTBOX_PUBLISHED.labels(name, "dead").inc()
            await self._mark_dead(message, str(error))
        except Exception:  # a publisher's edge: after a bug in a transport the sweep tries the row again
            metrics.OUTBOX_PUBLISHED.labels(name, "later").inc()
            log.exception("event_not_published", event_id=message.attributes["id"], event_type=name)
        else:
            metrics.OUTBOX_PUBLISHED.labels(name, "safe").inc()
            reached(Failpoint.AFTER_PUBLISH_BEFORE_MARK)
            await self._published_ids.put(message.attributes["id"])
            return True
        return False

    async def _delete_published(self) -> None:
        while True:
            ids = [await self._published_ids.get()]
            await asyncio.sleep(DELETE_DELAY_SECONDS)
            while not self._published_ids.empty() and len(ids) < SWEEP_BATCH:
                ids.append(self._published_ids.get_nowait())
            try:
                await self._delete(ids)
            finally:
                for _ in ids:
                    self._published_ids.task_done()

    async def _delete(self, ids: Sequence[str]) -> None:
        try:
            async with self._database.autocommit() as tx:
                await tx.run(DELETE_PUBLISHED, ids=list(ids))
        except Unconfirmed as error:
            log.warning("outbox_rows_kept", events=len(ids), error=str(error), then="they are published again")

    async def _mark_dead(self, message: Message, error: str) -> None:
        """Mark an event dead; where the database does not answer, a later sweep finds the event again."""
        log.error("event_unpublishable", event_id=message.attributes["id"], error=error)
        try:
            async with self._database.transaction() as tx:
                changed = await tx.run(MARK_DEAD, id=message.attributes["id"], error=error[:1000])
                if changed and self._on_dead is not None:
                    await self._on_dead(tx, Envelope.parse(message.attributes, message.data), error)
        except Unconfirmed as failure:
            log.warning("outbox_event_not_marked_dead", event_id=message.attributes["id"], error=str(failure))

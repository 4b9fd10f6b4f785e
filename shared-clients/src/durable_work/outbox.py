"""The outbox: what must be told to others is written in the transaction that changes the state.

`publish` inserts the event's row and, once the transaction is durable, hands it to a publisher in this process, so
that nothing waits for a poll. A row is deleted when the bus says the event is safe. `sweep` publishes what a crash, a
full buffer or an outage left behind. Delivery is at least once; consumers' inboxes make it once in effect.
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
from shared_clients.errors import Permanent, Transient
from shared_clients.failpoints import reached
from shared_clients.loops import Tasks
from shared_clients.postgres import Database, Tx, sql
from shared_models.catalog import EVENTS
from shared_models.envelope import Envelope

log = structlog.get_logger()

IN_FLIGHT: Final = 64
"""Events being published at once by one process; the next wait in the buffer."""
BUFFER: Final = 4096
"""Events handed over and not yet being published; what does not fit is left to the sweep."""
GATHER_SECONDS: Final = 0.05
"""How long ids of safe events gather, so that one commit deletes many rows; a crash meanwhile publishes them twice."""
SWEEP_BATCH: Final = 200
MAX_PENDING: Final = 100_000
"""Rows that may wait for the bus; beyond, and when the oldest has waited longer than that, nothing new is taken on."""
MAX_AGE_SECONDS: Final = 900.0

INSERT = sql("""
    INSERT INTO outbox (id, tenant, topic, key, attributes, data)
    VALUES (:id, :tenant, :topic, :key, CAST(:attributes AS jsonb), :data)
""")
DELETE = sql("DELETE FROM outbox WHERE id = ANY(:ids)")
CLAIM = sql("""
    UPDATE outbox SET
        attempts = attempts + 1,
        next_attempt_at = now() + least(5, power(2, least(attempts, 6))) * (0.5 + random()) * interval '1 second'
    WHERE id IN (
        SELECT id FROM outbox WHERE state = 'pending' AND next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    RETURNING id, topic, key, attributes, data
""")
"""Pauses grow to no more than some seconds: the bus fails for all rows at once, and once it is back all are to go."""
BURY = sql("UPDATE outbox SET state = 'dead', error = :error, died_at = now() WHERE id = :id AND state = 'pending'")
PENDING = sql("""
    SELECT count(*) AS pending, (
        SELECT extract(epoch FROM now() - created_at)::float8 FROM outbox WHERE state = 'pending' ORDER BY id LIMIT 1
    ) AS oldest
    FROM outbox WHERE state = 'pending'
""")
"""Ids grow with time, so the oldest is the first of the primary key; the count is of an index."""

OnDead = Callable[[Tx, Envelope, str], Awaitable[None]]
"""What a service does, in the same transaction, when one of its events can never be published."""


def message_of(event: Envelope) -> Message:
    """Return the bus message of an event: topic and key come from the catalogue."""
    return Message(EVENTS[event.type].topic, event.partitionkey, event.attributes(), event.data)


class Outbox:
    """One service's outbox.

    Args:
        database: the service's schema.
        bus: where events go.
        on_dead: called when an event can never be published; its request has to fail.
        most: rows that may wait.
        oldest: seconds that one may wait.

    Attributes:
        full: whether so much waits that a service should take on nothing new, as the last sweep saw it: asking for each
            request would cost more than the few that come in between.
    """

    def __init__(
        self,
        database: Database,
        bus: Bus,
        on_dead: OnDead | None = None,
        *,
        most: int = MAX_PENDING,
        oldest: float = MAX_AGE_SECONDS,
    ) -> None:
        self._database = database
        self._bus = bus
        self._on_dead = on_dead
        self._most = most
        self._oldest = oldest
        self.full = False
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(maxsize=BUFFER)
        self._safe: asyncio.Queue[str] = asyncio.Queue(maxsize=BUFFER)

    async def publish(self, tx: Tx, event: Envelope) -> None:
        """Write an event in the caller's transaction; it is handed over after the commit."""
        message = message_of(event)
        await tx.run(
            INSERT,
            id=event.id,
            tenant=event.tenantid,
            topic=message.topic,
            key=message.key,
            attributes=to_json(message.attributes).decode(),
            data=message.data,
        )
        tx.after_commit(lambda: self.hand_over(message))

    def hand_over(self, message: Message) -> None:
        """Have a committed event published by this process, soon; when there is no room the sweep will."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("outbox_buffer_full", buffer=BUFFER)

    async def sweep(self) -> int:
        """Publish the rows that are overdue, and return how many were; safe in any number of processes.

        After a batch that went through whole the next follows at once: so a backlog goes as fast as the bus takes it.
        """
        swept = 0
        while True:
            through = await self._sweep_batch()
            swept += len(through)
            if len(through) < SWEEP_BATCH or not all(through):
                return swept

    async def _sweep_batch(self) -> Sequence[bool]:
        """Publish up to a batch, and tell for each whether it is safe."""
        async with self._database.autocommit() as tx:
            rows = await tx.rows(CLAIM, batch=SWEEP_BATCH)
            waiting = await tx.row(PENDING)
        if waiting:
            metrics.OUTBOX_PENDING.labels(self._database.schema).set(waiting["pending"])
            self.full = waiting["pending"] >= self._most or (waiting["oldest"] or 0.0) >= self._oldest
        if rows:
            reached(Failpoint.AFTER_SWEEP_CLAIM_BEFORE_PUBLISH)
        messages = [Message(row["topic"], row["key"], row["attributes"], row["data"]) for row in rows]
        return await asyncio.gather(*(self._send(message) for message in messages))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Publish what is handed over while the context is open; at its end, what was handed over before it."""
        async with Tasks() as tasks:
            tasks.start("delete published events", self._deleting)
            for number in range(IN_FLIGHT):
                tasks.start(f"publish events {number}", self._sending)
            try:
                yield
            finally:
                await self._drain()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._waiting.join()
                await self._safe.join()
        except TimeoutError:
            log.warning("outbox_left_to_sweep", events=self._waiting.qsize())

    async def _sending(self) -> None:
        while True:
            message = await self._waiting.get()
            try:
                await self._send(message)
            finally:
                self._waiting.task_done()

    async def _send(self, message: Message) -> bool:
        """Publish an event, and tell whether it is safe."""
        name = message.attributes["type"]
        reached(Failpoint.AFTER_COMMIT_BEFORE_PUBLISH)
        try:
            await self._bus.publish(message)
        except Transient as error:
            metrics.OUTBOX_PUBLISHED.labels(name, "later").inc()
            log.warning("event_not_published", event_id=message.attributes["id"], event_type=name, error=str(error))
        except Permanent as error:
            metrics.OUTBOX_PUBLISHED.labels(name, "dead").inc()
            await self._bury(message, str(error))
        except Exception:  # the outermost edge of a publisher: a bug in a transport leaves the row to the sweep
            metrics.OUTBOX_PUBLISHED.labels(name, "later").inc()
            log.exception("event_not_published", event_id=message.attributes["id"], event_type=name)
        else:
            metrics.OUTBOX_PUBLISHED.labels(name, "safe").inc()
            reached(Failpoint.AFTER_PUBLISH_BEFORE_MARK)
            await self._safe.put(message.attributes["id"])
            return True
        return False

    async def _deleting(self) -> None:
        while True:
            ids = [await self._safe.get()]
            await asyncio.sleep(GATHER_SECONDS)
            while not self._safe.empty() and len(ids) < SWEEP_BATCH:
                ids.append(self._safe.get_nowait())
            try:
                await self._delete(ids)
            finally:
                for _ in ids:
                    self._safe.task_done()

    async def _delete(self, ids: Sequence[str]) -> None:
        try:
            async with self._database.autocommit() as tx:
                await tx.run(DELETE, ids=list(ids))
        except Transient as error:
            log.warning("outbox_rows_kept", events=len(ids), error=str(error), then="they are published again")

    async def _bury(self, message: Message, error: str) -> None:
        log.error("event_unpublishable", event_id=message.attributes["id"], error=error)
        try:
            async with self._database.transaction() as tx:
                buried = await tx.run(BURY, id=message.attributes["id"], error=error[:1000])
                if buried and self._on_dead is not None:
                    await self._on_dead(tx, Envelope.parse(message.attributes, message.data), error)
        except Transient as failure:
            log.warning("outbox_burial_postponed", error=str(failure))

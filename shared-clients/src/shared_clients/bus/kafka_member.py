"""One membership in a Kafka consumer group: what is fetched, what is handled, and how far that may be committed.

`kafka` starts `consume` for each subscription; `lanes` runs the handlers. Partitions are paused while too many of their
records wait, so memory is bounded; the consumer goes on polling, so a slow handler never costs the membership.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, InvalidSessionTimeoutError, KafkaError

from shared_clients.bus.codec import Record, decode
from shared_clients.bus.lanes import Lanes, pause_after
from shared_clients.bus.port import Message

log = structlog.get_logger()

UNSETTLED: Final = 128
"""Records of one partition that are fetched and not handled; it is paused then."""
SPAN: Final = 10_000
"""Records from the first of a partition that is not handled to the last that is: what a crash may repeat."""
HAND_BACK_SECONDS: Final = 3.0
"""How long a rebalance, or a lost connection, waits for begun handlers before others get their records too."""
LEAST_SECONDS: Final = 6.0
"""The shortest session that every broker accepts, unless its `group.min.session.timeout.ms` was raised."""
COMMIT_SECONDS: Final = 3.0
STOP_SECONDS: Final = 4.0


async def consume(
    servers: Sequence[str], group: str, topics: frozenset[str], lanes: Lanes, *, session_seconds: float
) -> None:
    """Take part in a group until cancelled, and leave it in order then."""
    failures, me = 0, asyncio.current_task()
    while me is not None and not me.cancelling():
        consumer = new_consumer(servers, group, session_seconds)
        membership = Membership(consumer, lanes)
        consumer.subscribe(sorted(topics), listener=membership)
        try:
            await membership.run()
        except* InvalidSessionTimeoutError:
            log.warning("session_refused", group=group, seconds=session_seconds, then=LEAST_SECONDS)
            session_seconds = LEAST_SECONDS
        except* Exception as errors:  # noqa: BLE001 - the outermost edge: a member that stops consuming is a silent loss
            failures = 1 if membership.assigned else failures + 1
            log.warning("consumer_lost", group=group, error=repr(errors.exceptions[0])[:200], failures=failures)
        await asyncio.sleep(pause_after(failures))


def new_consumer(servers: Sequence[str], group: str, session_seconds: float) -> AIOKafkaConsumer:
    """Return a consumer that commits nothing by itself and begins with the oldest record; not started."""
    return AIOKafkaConsumer(
        bootstrap_servers=servers,
        group_id=group,
        session_timeout_ms=int(session_seconds * 1000),
        heartbeat_interval_ms=int(session_seconds * 1000 / 6),
        rebalance_timeout_ms=15_000,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """The time between joining a group and leaving it or losing the connection."""

    def __init__(self, consumer: AIOKafkaConsumer, lanes: Lanes) -> None:
        self._consumer = consumer
        self._lanes = lanes
        self._progress: dict[TopicPartition, Progress] = {}
        self._advanced = asyncio.Event()
        self._committing = asyncio.Lock()
        self.assigned = False

    async def run(self) -> None:
        """Consume until cancelled or until the connection is lost; what is not handled then is for others."""
        try:
            await self._consumer.start()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._fetch())
                tasks.create_task(self._keep_committing())
        finally:
            try:
                await self._hand_back()
            finally:
                await self._stop()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Called before each rebalance, which waits for it while the heartbeat goes on."""
        if revoked:
            await self._hand_back()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.assigned = True
        log.info("partitions_assigned", partitions=len(assigned))

    async def _fetch(self) -> None:
        while True:
            fetched = await self._consumer.getmany(timeout_ms=1000, max_records=UNSETTLED)
            for partition, records in fetched.items():
                progress = self._progress.setdefault(partition, Progress(self._advanced))
                for record in records:
                    progress.add(record.offset, self._lanes.offer(_message(record)).handled)
                if progress.is_full():
                    self._consumer.pause(partition)

    async def _keep_committing(self) -> None:
        while True:
            await self._advanced.wait()
            self._advanced.clear()
            await self._commit()
            for partition in self._consumer.paused():
                if partition not in self._progress or not self._progress[partition].is_full():
                    self._consumer.resume(partition)

    async def _commit(self) -> None:
        async with self._committing:
            advanced = {
                partition: (progress, offset)
                for partition, progress in self._progress.items()
                if (offset := progress.reached()) != progress.committed
            }
            if not advanced:
                return
            try:
                await self._consumer.commit({partition: offset for partition, (_, offset) in advanced.items()})
            except (CommitFailedError, IllegalStateError):
                log.info("commit_refused", partitions=len(advanced))  # moved to others, who get these records again
                return
            for progress, offset in advanced.values():
                progress.committed = offset

    async def _hand_back(self) -> None:
        """Begin nothing more of what was fetched, and commit what is handled."""
        self._lanes.clear(begun=False)
        if running := self._lanes.running():
            await asyncio.wait(running, timeout=HAND_BACK_SECONDS)
        self._lanes.clear(begun=True)
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._commit()
        except (KafkaError, TimeoutError) as error:
            log.warning("commit_failed", error=repr(error)[:200])
        self._progress.clear()

    async def _stop(self) -> None:
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._consumer.stop()
        except (KafkaError, TimeoutError):
            # it waits for its turn in a rebalance, which may be waiting for a member that died: hang up instead
            if self._consumer._fetcher is not None:  # noqa: SLF001 - stop() has no way to leave without this wait
                await self._consumer._fetcher.close()  # noqa: SLF001 - same
            await self._consumer._client.close()  # noqa: SLF001 - same


class Progress:
    """The records of one partition that were fetched, in order, and how far they are handled without a gap.

    Args:
        advanced: set whenever one of them is settled.
    """

    def __init__(self, advanced: asyncio.Event) -> None:
        self._advanced = advanced
        self._fetched: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._unsettled = 0
        self._reached: int | None = None
        self.committed: int | None = None

    def add(self, offset: int, handled: asyncio.Future[None]) -> None:
        self._fetched.append((offset, handled))
        self._unsettled += 1
        handled.add_done_callback(self._settle)

    def reached(self) -> int | None:
        """Return the offset to commit, one beyond the last record before the first that is not handled."""
        while self._fetched and self._fetched[0][1].done() and not self._fetched[0][1].cancelled():
            self._reached = self._fetched.popleft()[0] + 1
        return self._reached

    def is_full(self) -> bool:
        return self._unsettled >= UNSETTLED or len(self._fetched) >= SPAN

    def _settle(self, _: asyncio.Future[None]) -> None:
        self._unsettled -= 1
        self._advanced.set()


def _message(record: ConsumerRecord) -> Message:
    origin = f"kafka:{record.topic}/{record.partition}@{record.offset}"
    return decode(record.topic, Record(record.key, record.value or b"", record.headers), origin)

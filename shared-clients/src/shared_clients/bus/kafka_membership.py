"""One membership in a Kafka consumer group: it fetches records, and commits the offsets of those that are handled.

`kafka` starts `consume` for each subscription, and `dispatching` runs the handlers. A partition is paused while too
many of its records wait, so memory is bounded. The consumer goes on polling, so a slow handler never costs the
membership.
"""

import asyncio
from collections import deque
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, InvalidSessionTimeoutError, KafkaError

from shared_clients.bus.codec import Record, decode
from shared_clients.bus.dispatching import Dispatcher, pause_after
from shared_clients.bus.kafka_cluster import KafkaCluster
from shared_clients.bus.port import Message

log = structlog.get_logger()

MAX_UNHANDLED: Final = 128
"""Records of one partition that are fetched and not handled; at this number it is paused."""
MAX_UNCOMMITTED: Final = 10_000
"""The most fetched and uncommitted records of one partition, which a crash may repeat; at this number the partition is
paused."""
REVOKE_SECONDS: Final = 3.0
"""Seconds that a rebalance or a lost connection waits for running handlers; then other members get the unfinished
records."""
MIN_SESSION_SECONDS: Final = 6.0
"""The shortest session that every broker accepts, unless its `group.min.session.timeout.ms` was raised."""
COMMIT_SECONDS: Final = 3.0
STOP_SECONDS: Final = 4.0


async def consume(
    cluster: KafkaCluster, group: str, topics: frozenset[str], dispatcher: Dispatcher, *, session_seconds: float
) -> None:
    """Be a member of a group until cancelled; join again after each failure."""
    failures, this_task = 0, asyncio.current_task()
    while this_task is not None and not this_task.cancelling():
        consumer = new_consumer(cluster, group, session_seconds)
        membership = Membership(consumer, dispatcher)
        consumer.subscribe(sorted(topics), listener=membership)
        try:
            await membership.run()
        except* InvalidSessionTimeoutError:
            log.warning("session_refused", group=group, seconds=session_seconds, fallback_seconds=MIN_SESSION_SECONDS)
            session_seconds = MIN_SESSION_SECONDS
        except* Exception as errors:  # noqa: BLE001 - the outermost edge: a member that stops is a silent loss
            failures = 1 if membership.assigned else failures + 1
            log.warning("consumer_lost", group=group, error=repr(errors.exceptions[0])[:200], failures=failures)
        await asyncio.sleep(pause_after(failures))


def new_consumer(cluster: KafkaCluster, group: str, session_seconds: float) -> AIOKafkaConsumer:
    """Return a consumer, not started, that commits only on request and begins with the oldest record."""
    return AIOKafkaConsumer(
        **cluster.client_arguments(),
        group_id=group,
        session_timeout_ms=int(session_seconds * 1000),
        heartbeat_interval_ms=int(session_seconds * 1000 / 6),
        rebalance_timeout_ms=15_000,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """A consumer in its group, from its start until it leaves or loses the connection."""

    def __init__(self, consumer: AIOKafkaConsumer, dispatcher: Dispatcher) -> None:
        self._consumer = consumer
        self._dispatcher = dispatcher
        self._progress: dict[TopicPartition, PartitionProgress] = {}
        self._advanced = asyncio.Event()
        self._commit_lock = asyncio.Lock()
        self.assigned = False

    async def run(self) -> None:
        """Consume until cancelled or until the connection is lost; then other members get the unhandled records."""
        try:
            await self._consumer.start()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._fetch())
                tasks.create_task(self._keep_committing())
        finally:
            try:
                await self._give_up_partitions()
            finally:
                await self._stop()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Give up the partitions before a rebalance, which waits for this call while heartbeats go on."""
        if revoked:
            await self._give_up_partitions()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.assigned = True
        log.info("partitions_assigned", partitions=len(assigned))

    async def _fetch(self) -> None:
        while True:
            fetched = await self._consumer.getmany(timeout_ms=1000, max_records=MAX_UNHANDLED)
            for partition, records in fetched.items():
                progress = self._progress.setdefault(partition, PartitionProgress(self._advanced))
                for record in records:
                    progress.add(record.offset, self._dispatcher.enqueue(_message(record)).handled)
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
        async with self._commit_lock:
            advanced = {
                partition: (progress, offset)
                for partition, progress in self._progress.items()
                if (offset := progress.offset_to_commit()) != progress.committed
            }
            if not advanced:
                return
            try:
                await self._consumer.commit({partition: offset for partition, (_, offset) in advanced.items()})
            except (CommitFailedError, IllegalStateError):
                log.info(
                    "commit_refused", partitions=len(advanced)
                )  # other members have the partitions, and get these records again
                return
            for progress, offset in advanced.values():
                progress.committed = offset

    async def _give_up_partitions(self) -> None:
        """Start no more handlers, wait for those that run, and commit the handled records."""
        self._dispatcher.remove_all(running=False)
        if running := self._dispatcher.running():
            await asyncio.wait(running, timeout=REVOKE_SECONDS)
        self._dispatcher.remove_all(running=True)
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
            # stop() waits for a rebalance, which may wait for a member that died: close the connections instead
            if self._consumer._fetcher is not None:  # noqa: SLF001 - no public way to close without that wait
                await self._consumer._fetcher.close()  # noqa: SLF001 - same
            await self._consumer._client.close()  # noqa: SLF001 - same


class PartitionProgress:
    """The fetched records of one partition in order, and the offset up to which all are handled.

    Args:
        advanced: set whenever a record is handled or dropped.
    """

    def __init__(self, advanced: asyncio.Event) -> None:
        self._advanced = advanced
        self._fetched: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._unhandled = 0
        self._offset: int | None = None
        self.committed: int | None = None

    def add(self, offset: int, handled: asyncio.Future[None]) -> None:
        self._fetched.append((offset, handled))
        self._unhandled += 1
        handled.add_done_callback(self._on_handled)

    def offset_to_commit(self) -> int | None:
        """Return the offset to commit: one beyond the last record before the first unhandled one."""
        while self._fetched and self._fetched[0][1].done() and not self._fetched[0][1].cancelled():
            self._offset = self._fetched.popleft()[0] + 1
        return self._offset

    def is_full(self) -> bool:
        return self._unhandled >= MAX_UNHANDLED or len(self._fetched) >= MAX_UNCOMMITTED

    def _on_handled(self, _: asyncio.Future[None]) -> None:
        self._unhandled -= 1
        self._advanced.set()


def _message(record: ConsumerRecord) -> Message:
    origin = f"kafka:{record.topic}/{record.partition}@{record.offset}"
    return decode(record.topic, Record(record.key, record.value or b"", record.headers), origin)

"""The bus on Kafka: events outlive every process, and any number of services and replicas can read them.

All in-sync replicas acknowledge a published message. In each partition, offsets are committed up to the first record
that is not handled yet, and never beyond: a crash repeats records, and loses none.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from shared_clients.bus.codec import Record, check_size, encode
from shared_clients.bus.dispatching import Dispatcher, finish
from shared_clients.bus.kafka_cluster import KafkaCluster
from shared_clients.bus.kafka_membership import consume
from shared_clients.bus.port import Handler, Message
from shared_clients.errors import Permanent, Transient

log = structlog.get_logger()

PUBLISH_SECONDS: Final = 10.0
STOP_SECONDS: Final = 3.0
BATCH_BYTES: Final = 16_384
"""The most bytes of the messages in one batch; a larger message has a batch of its own."""


class KafkaBus:
    """A bus on a Kafka cluster; it connects when it is first used, and again when a connection is lost.

    Args:
        url: as `KafkaCluster.parse` reads it.
        session_seconds: after this silence a member counts as dead and its partitions move, so the events of a killed
            process wait that long. A broker that refuses the value gets `kafka_membership.MIN_SESSION_SECONDS`.
    """

    def __init__(self, url: str, *, session_seconds: float = 3.0) -> None:
        self._cluster = KafkaCluster.parse(url)
        self._session_seconds = session_seconds
        self._producer: AIOKafkaProducer | None = None
        self._topics_sent_alone = frozenset[str]()  # at most the topics of the catalogue
        self._sending_alone = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()
        self._closed = False

    async def publish(self, message: Message) -> None:
        check_size(message)
        record = encode(message)
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._send_in_batch_or_alone(message.topic, record)
        except UnknownTopicOrPartitionError as error:
            raise Transient(f"a message for {message.topic} is not on Kafka: there is no such topic") from error
        except (TopicAuthorizationFailedError, ClusterAuthorizationFailedError) as error:
            raise Transient(
                f"a message for {message.topic} is not on Kafka: its ACLs do not let this user write"
            ) from error
        except MessageSizeTooLargeError as error:
            raise Permanent(f"a message for {message.topic} is larger than the topic takes") from error
        except (KafkaError, TimeoutError) as error:
            raise Transient(f"a message for {message.topic} is not on Kafka: {type(error).__name__}") from error

    @asynccontextmanager
    async def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> AsyncGenerator[None]:
        dispatcher = Dispatcher()
        member = dispatcher.join(handler)
        consuming = asyncio.create_task(
            consume(self._cluster, group, topics, dispatcher, session_seconds=self._session_seconds),
            name=f"consume {group}",
        )
        try:
            yield
        finally:
            dispatcher.leave(member)
            try:
                await finish(member)
            finally:
                consuming.cancel()
                await asyncio.wait({consuming})

    async def close(self) -> None:
        self._closed = True
        async with self._opening:
            self._retire(self._producer)
        if self._stopping:
            await asyncio.wait(self._stopping)

    async def _send_in_batch_or_alone(self, topic: str, record: Record) -> None:
        """Send a record with others, or in a batch of its own where the topic refused a batch as too large.

        A topic that refuses a batch refuses every message in it. If the maximum of the topic is below `BATCH_BYTES`,
        each message may still fit alone, so from then on the messages of this topic are sent one by one.
        """
        if topic not in self._topics_sent_alone:
            try:
                await self._send(topic, record)
            except MessageSizeTooLargeError:
                if len(record.value) >= BATCH_BYTES:
                    raise
                if topic not in self._topics_sent_alone:
                    log.warning(
                        "topic_takes_small_batches_only", topic=topic, consequence="its messages are sent one by one"
                    )
                self._topics_sent_alone |= {topic}
            else:
                return
        async with self._sending_alone:
            await self._send(topic, record)

    async def _send(self, topic: str, record: Record) -> None:
        producer = None
        try:
            producer = await self._open()
            await (await producer.send(topic, record.value, record.key, headers=list(record.headers)))
        except UnknownTopicOrPartitionError:
            raise
        except (KafkaError, TimeoutError, asyncio.CancelledError):
            self._retire(producer)
            raise

    async def _open(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._closed:
                raise Transient("the bus is closed")
            if self._producer is None:
                async with AsyncExitStack() as failed:
                    producer = new_producer(self._cluster)
                    failed.push_async_callback(_stop, producer)
                    await producer.start()
                    failed.pop_all()
                self._producer = producer
            return self._producer

    def _retire(self, producer: AIOKafkaProducer | None) -> None:
        """Stop a producer after a failure; the next message opens a new one.

        A failed batch leaves a gap in the sequence numbers of a producer, and brokers refuse all its later batches.
        """
        if producer is None or producer is not self._producer:
            return
        self._producer = None
        stopping = asyncio.create_task(_stop(producer), name="stop producer")
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)


def new_producer(cluster: KafkaCluster) -> AIOKafkaProducer:
    """Return a producer, not started, that sends at once and waits for all in-sync replicas."""
    return AIOKafkaProducer(
        **cluster.client_arguments(),
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=BATCH_BYTES,
        request_timeout_ms=8_000,
    )


async def create_topics(url: str, topics: frozenset[str], *, partitions: int) -> None:
    """Create the topics that do not exist, on up to three brokers, of which one may be down.

    Raises:
        Transient: Kafka does not answer now.
        Permanent: Kafka refuses a topic.
    """
    admin = AIOKafkaAdminClient(**KafkaCluster.parse(url).client_arguments(), request_timeout_ms=8_000)
    try:
        await admin.start()
        replicas = min(3, len((await admin.describe_cluster())["brokers"]))
        configs = {"min.insync.replicas": str(max(1, replicas - 1))}
        wanted = [NewTopic(topic, partitions, replicas, topic_configs=configs) for topic in sorted(topics)]
        answer = await admin.create_topics(wanted)
    except (KafkaError, TimeoutError) as error:
        raise Transient(f"topics are not created: {type(error).__name__}") from error
    finally:
        await admin.close()
    for topic, code, reason in answer.topic_errors:
        if code not in {0, TopicAlreadyExistsError.errno}:
            raise Permanent(f"the topic {topic} is not created: {reason} (Kafka error {code})")


async def list_missing_topics(url: str, topics: frozenset[str]) -> frozenset[str]:
    """Return the topics that do not exist.

    Raises:
        Transient: Kafka does not answer now.
    """
    admin = AIOKafkaAdminClient(**KafkaCluster.parse(url).client_arguments(), request_timeout_ms=8_000)
    try:
        await admin.start()
        return topics - set(await admin.list_topics())
    except (KafkaError, TimeoutError) as error:
        raise Transient(f"topics cannot be listed: {type(error).__name__}") from error
    finally:
        await admin.close()


async def _stop(producer: AIOKafkaProducer) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            await producer.stop()
            return
    # stop() flushes first, which never ends for an idempotent producer without a broker: do its other steps here
    await producer._sender.close()  # noqa: SLF001 - no public way to stop without flushing
    producer._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001 - or its flush waits for ever
    await producer.client.close()

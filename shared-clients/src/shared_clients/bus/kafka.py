"""The bus on Kafka: facts outlive every process, and any number of services and replicas read them.

What is published is acknowledged by all in-sync replicas. What is consumed is committed up to the first record of its
partition that is not handled yet, never beyond: a crash repeats records, and loses none.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

from shared_clients.bus.codec import check_size, encode
from shared_clients.bus.kafka_member import consume
from shared_clients.bus.lanes import Lanes, finish
from shared_clients.bus.port import Handler, Message
from shared_clients.errors import Permanent, Transient

log = structlog.get_logger()

PUBLISH_SECONDS: Final = 10.0
STOP_SECONDS: Final = 3.0

_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/@\[\]]+):[0-9]{1,5}")


def servers_of(url: str) -> list[str]:
    """Return the `host:port` pairs of a `kafka://` URL.

    Raises:
        ValueError: it is not of that form; the message does not repeat it, because a secret may be in it.
    """
    servers = url.removeprefix("kafka://").removesuffix("/").split(",")
    if not url.startswith("kafka://") or not all(_ADDRESS.fullmatch(server) for server in servers):
        raise ValueError("the bus URL is not of the form kafka://host:port[,host:port], without user, path or options")
    return servers


class KafkaBus:
    """A bus on a Kafka cluster; it connects when it is first used, and again when a connection is lost.

    Args:
        url: `kafka://host:port[,host:port]`.
        session_seconds: after how much silence a member counts as dead and its partitions move, which is how long the
            events of a killed process wait; where the broker takes no such value, `kafka_member.LEAST_SECONDS`.
    """

    def __init__(self, url: str, *, session_seconds: float = 3.0) -> None:
        self._servers = servers_of(url)
        self._session_seconds = session_seconds
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        self._retired: set[asyncio.Task[None]] = set()
        self._closed = False

    async def publish(self, message: Message) -> None:
        check_size(message)
        record = encode(message)
        producer = None
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                producer = await self._open()
                sent = await producer.send(message.topic, record.value, record.key, headers=list(record.headers))
                await sent
        except UnknownTopicOrPartitionError as error:
            raise Transient(f"a message for {message.topic} is not on Kafka: there is no such topic") from error
        except MessageSizeTooLargeError as error:
            self._retire(producer)
            raise Permanent(f"a message for {message.topic} is larger than the topic takes") from error
        except (KafkaError, TimeoutError) as error:
            self._retire(producer)
            raise Transient(f"a message for {message.topic} is not on Kafka: {type(error).__name__}") from error

    @asynccontextmanager
    async def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> AsyncGenerator[None]:
        lanes = Lanes()
        member = lanes.join(handler)
        consuming = asyncio.create_task(
            consume(self._servers, group, topics, lanes, session_seconds=self._session_seconds), name=f"consume {group}"
        )
        try:
            yield
        finally:
            lanes.leave(member)
            try:
                await finish(member)
            finally:
                consuming.cancel()
                await asyncio.wait({consuming})

    async def close(self) -> None:
        self._closed = True
        async with self._opening:
            self._retire(self._producer)
        if self._retired:
            await asyncio.wait(self._retired)

    async def _open(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._closed:
                raise Transient("the bus is closed")
            if self._producer is None:
                async with AsyncExitStack() as failed:
                    producer = new_producer(self._servers)
                    failed.push_async_callback(_stop, producer)
                    await producer.start()
                    failed.pop_all()
                self._producer = producer
            return self._producer

    def _retire(self, producer: AIOKafkaProducer | None) -> None:
        """Have the next message open a new producer, and let this one finish what it can.

        After a failed batch there is a gap in its sequence numbers: brokers refuse all that follows.
        """
        if producer is None or producer is not self._producer:
            return
        self._producer = None
        stopping = asyncio.create_task(_stop(producer), name="stop producer")
        self._retired.add(stopping)
        stopping.add_done_callback(self._retired.discard)


def new_producer(servers: Sequence[str]) -> AIOKafkaProducer:
    """Return a producer whose answers come from all in-sync replicas, without waiting for company; not started."""
    return AIOKafkaProducer(
        bootstrap_servers=servers, acks="all", enable_idempotence=True, linger_ms=0, request_timeout_ms=8_000
    )


async def create_topics(url: str, topics: frozenset[str], *, partitions: int) -> None:
    """Make the topics that do not exist, on up to three brokers, safe with one of them down.

    Raises:
        Transient: Kafka cannot be asked now.
        Permanent: it refuses one of them.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=servers_of(url), request_timeout_ms=8_000)
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


async def _stop(producer: AIOKafkaProducer) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            await producer.stop()
            return
    # stop() flushes, and while no broker answers an idempotent producer never gives a batch up: do the rest of it here
    await producer._sender.close()  # noqa: SLF001 - no public way to stop without flushing
    producer._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001 - else its flush waits for ever
    await producer.client.close()

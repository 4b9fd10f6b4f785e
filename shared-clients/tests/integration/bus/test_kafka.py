"""Faults that only Kafka has: settings, strangers' records, refused batches, dead processes, absent brokers."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from shared_clients.bus import ensure_topics
from shared_clients.bus.kafka import KafkaBus, new_producer
from shared_clients.bus.kafka_cluster import KafkaCluster
from shared_clients.bus.kafka_membership import MAX_UNCOMMITTED, MAX_UNHANDLED, PartitionProgress, new_consumer
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent, Transient

NOWHERE = "kafka://127.0.0.1:1"


def event(topic: str, data: bytes = b"{}", key: str = "k") -> Message:
    return Message(topic, key, {"specversion": "1.0", "id": str(uuid4()), "source": "/s", "type": "t"}, data)


@pytest.fixture
async def topic(kafka_url: str) -> str:
    name = f"tested-{uuid4()}"
    await ensure_topics(kafka_url, frozenset({name}), partitions=1)
    return name


@pytest.fixture
async def bus(kafka_url: str) -> AsyncGenerator[KafkaBus]:
    bus = KafkaBus(kafka_url, session_seconds=1.5)
    yield bus
    await bus.close()


async def receive(seen: asyncio.Queue[Message], count: int) -> list[Message]:
    async with asyncio.timeout(30):
        return [await seen.get() for _ in range(count)]


async def test_settings_that_would_quietly_break_promises_are_set() -> None:
    producer, consumer = new_producer(KafkaCluster.parse(NOWHERE)), new_consumer(KafkaCluster.parse(NOWHERE), "g", 6.0)
    try:
        assert producer._sender._acks == -1
        assert producer._txn_manager is not None, "idempotence"
        assert producer._message_accumulator._linger_time == 0
        assert consumer._enable_auto_commit is False
        assert consumer._auto_offset_reset == "earliest"
        assert consumer._isolation_level == "read_committed"
    finally:
        await producer.stop()
        await consumer.stop()


async def test_a_broker_that_refuses_so_short_a_session_gets_a_longer_one(kafka_url: str, topic: str) -> None:
    bus = KafkaBus(kafka_url, session_seconds=0.5)
    seen: asyncio.Queue[Message] = asyncio.Queue()
    async with bus.subscribe(f"hasty-{uuid4()}", frozenset({topic}), seen.put):
        await bus.publish(event(topic))
        assert [message.topic for message in await receive(seen, 1)] == [topic]
    await bus.close()


async def test_nothing_beyond_the_first_unhandled_record_may_be_committed() -> None:
    progress = PartitionProgress(asyncio.Event())
    handled = [asyncio.get_running_loop().create_future() for _ in range(4)]
    for offset, future in zip((7, 8, 11, 12), handled, strict=True):
        progress.add(offset, future)
    handled[1].set_result(None)
    assert progress.offset_to_commit() is None
    handled[0].set_result(None)
    assert progress.offset_to_commit() == 9
    handled[2].cancel()
    handled[3].set_result(None)
    assert progress.offset_to_commit() == 9


async def test_partition_is_full_by_unhandled_and_by_uncommitted_records() -> None:
    progress = PartitionProgress(asyncio.Event())
    stuck = [asyncio.get_running_loop().create_future() for _ in range(MAX_UNHANDLED)]
    for offset, future in enumerate(stuck):
        progress.add(offset, future)
    assert progress.is_full()
    stuck[-1].set_result(None)
    await asyncio.sleep(0)
    assert not progress.is_full()
    for offset in range(MAX_UNHANDLED, MAX_UNCOMMITTED):
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        progress.add(offset, done)
    await asyncio.sleep(0)
    assert progress.is_full()


async def test_absent_broker_is_transient_and_never_holds_up_leaving() -> None:
    bus = KafkaBus(NOWHERE)
    async with asyncio.timeout(5):
        with pytest.raises(Transient, match="KafkaConnectionError"):
            await ensure_topics(NOWHERE, frozenset({"t"}))
        async with bus.subscribe("g", frozenset({"t"}), asyncio.Queue[Message]().put):
            with pytest.raises(Transient, match="KafkaConnectionError"):
                await bus.publish(event("t"))
        await bus.close()


@pytest.mark.kafka
async def test_topics_are_made_once_and_their_number_of_partitions_stays(kafka_url: str, topic: str) -> None:
    await ensure_topics(kafka_url, frozenset({topic}), partitions=5)
    admin = AIOKafkaAdminClient(**KafkaCluster.parse(kafka_url).client_arguments())
    await admin.start()
    try:
        [described] = await admin.describe_topics([topic])
    finally:
        await admin.close()
    assert len(described["partitions"]) == 1


@pytest.mark.kafka
async def test_topic_with_an_impossible_name_is_refused_for_good(kafka_url: str) -> None:
    with pytest.raises(Permanent, match="a topic"):
        await ensure_topics(kafka_url, frozenset({"a topic"}))


@pytest.mark.kafka
async def test_strangers_records_arrive_as_they_are_and_hold_nothing_up(
    kafka_url: str, topic: str, bus: KafkaBus
) -> None:
    stranger = new_producer(KafkaCluster.parse(kafka_url))
    await stranger.start()
    await stranger.send_and_wait(topic, b"\x00\xff", headers=[("ce_id", b"\xff"), ("ce_time", b"yesterday")])
    await stranger.send_and_wait(topic, None, key=b"deleted")
    await stranger.send_and_wait(topic, b'{"id": "3"}', headers=[("content-type", b"application/cloudevents+json")])
    await stranger.stop()
    await bus.publish(event(topic, b"ours"))
    seen = asyncio.Queue[Message]()
    async with bus.subscribe(f"g {topic}", frozenset({topic}), seen.put):
        arrived = {message.origin: message for message in await receive(seen, 4)}
    odd, deleted, structured, ours = (arrived[f"kafka:{topic}/0@{offset}"] for offset in range(4))
    assert (odd.attributes, odd.data) == ({"id": "\\xff", "time": "yesterday"}, b"\x00\xff")
    assert (deleted.key, deleted.data, deleted.attributes) == ("deleted", b"", {})
    assert structured.attributes == {"id": "3"}
    assert ours.data == b"ours"


@pytest.mark.kafka
async def test_message_that_its_topic_refuses_does_not_spoil_those_after_it(kafka_url: str, bus: KafkaBus) -> None:
    narrow = f"narrow-{uuid4()}"
    admin = AIOKafkaAdminClient(**KafkaCluster.parse(kafka_url).client_arguments())
    await admin.start()
    await admin.create_topics([NewTopic(narrow, 1, 1, topic_configs={"max.message.bytes": "2000"})])
    await admin.close()
    with pytest.raises(Permanent, match="larger than the topic takes"):
        await bus.publish(event(narrow, b"x" * 3000))
    await bus.publish(event(narrow, b"after"))
    seen = asyncio.Queue[Message]()
    async with bus.subscribe(f"g {narrow}", frozenset({narrow}), seen.put):
        assert [message.data for message in await receive(seen, 1)] == [b"after"]


@pytest.mark.kafka
async def test_record_that_is_never_handled_lets_the_others_of_its_partition_pass(topic: str, bus: KafkaBus) -> None:
    count = 5 * MAX_UNHANDLED
    seen = asyncio.Queue[Message]()

    async def handle(message: Message) -> None:
        if message.key == "poisoned":
            raise ValueError
        await seen.put(message)

    await bus.publish(event(topic, b"poison", "poisoned"))
    await asyncio.gather(*(bus.publish(event(topic, b"%d" % n, f"k{n}")) for n in range(count)))
    group = f"g {topic}"
    async with bus.subscribe(group, frozenset({topic}), handle):
        assert len({message.data for message in await receive(seen, count)}) == count
    async with bus.subscribe(group, frozenset({topic}), seen.put):
        assert b"poison" in {message.data for message in await receive(seen, count + 1)}


@pytest.mark.kafka
@pytest.mark.processes
async def test_what_a_killed_process_had_begun_goes_to_another_member(
    kafka_url: str, topic: str, bus: KafkaBus
) -> None:
    group, seen = f"g {topic}", asyncio.Queue[Message]()
    script = Path(__file__).with_name("idle_member.py")
    doomed = await asyncio.create_subprocess_exec(
        sys.executable, script, kafka_url, group, topic, stderr=asyncio.subprocess.PIPE
    )
    assert doomed.stderr is not None
    await bus.publish(event(topic, b"one"))
    async with asyncio.timeout(30):
        while b"begun one" not in await doomed.stderr.readline():
            pass
    doomed.kill()
    await doomed.communicate()
    async with bus.subscribe(group, frozenset({topic}), seen.put):
        assert [message.data for message in await receive(seen, 1)] == [b"one"]


@pytest.mark.kafka
async def test_what_was_handled_is_committed_when_a_member_leaves(kafka_url: str, topic: str, bus: KafkaBus) -> None:
    group, seen = f"g {topic}", asyncio.Queue[Message]()
    async with bus.subscribe(group, frozenset({topic}), seen.put):
        await asyncio.gather(*(bus.publish(event(topic, key=f"k{n}")) for n in range(10)))
        await receive(seen, 10)
    admin = AIOKafkaAdminClient(**KafkaCluster.parse(kafka_url).client_arguments())
    await admin.start()
    committed = await admin.list_consumer_group_offsets(group)
    await admin.close()
    assert committed[TopicPartition(topic, 0)].offset == 10


@pytest.fixture
async def small_topic(kafka_url: str) -> str:
    name = f"small-{uuid4()}"
    await make_topic(kafka_url, name, {"max.message.bytes": "2000"})
    return name


async def make_topic(url: str, name: str, configs: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(**KafkaCluster.parse(url).client_arguments())
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1, topic_configs=configs)])
    finally:
        await admin.close()


async def outcome(bus: KafkaBus, message: Message) -> str:
    try:
        await bus.publish(message)
    except Permanent:
        return "refused"
    return "published"


async def test_only_the_message_that_a_topic_does_not_take_is_refused(bus: KafkaBus, small_topic: str) -> None:
    assert await outcome(bus, event(small_topic)) == "published"
    sizes = [100, 100, 100, 5000, 100, 1500, 5000, 100]
    seen = await asyncio.gather(*(outcome(bus, event(small_topic, b"1" * size)) for size in sizes))
    assert seen == ["refused" if size == 5000 else "published" for size in sizes]


async def test_messages_that_fit_one_by_one_are_published_though_their_batch_is_too_large(
    bus: KafkaBus, small_topic: str
) -> None:
    seen = await asyncio.gather(*(outcome(bus, event(small_topic, b"1" * 100)) for _ in range(30)))
    assert seen == ["published"] * 30


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_topic_may_have_any_compression(bus: KafkaBus, kafka_url: str, compression: str) -> None:
    name = f"{compression}-{uuid4()}"
    await make_topic(kafka_url, name, {"compression.type": compression})
    seen: asyncio.Queue[Message] = asyncio.Queue()
    sent = event(name, b"1" * 5000)
    async with bus.subscribe("group", frozenset({name}), seen.put):
        await bus.publish(sent)
        assert await receive(seen, 1) == [sent]

"""The promises of every transport of the bus; the same tests run on each."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest

from shared_clients.bus import ensure_topics
from shared_clients.bus.codec import MAX_MESSAGE
from shared_clients.bus.kafka import KafkaBus
from shared_clients.bus.memory import MemoryBus
from shared_clients.bus.port import Bus, Handler, Message
from shared_clients.errors import Permanent, Transient
from tests.simulators.doors import processes

TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1,b=2"}
ALL_BYTES = bytes(range(256))
GROUPS = {"test_every_group_gets_everything": ("one", "other")}
"""The subscriptions of each test, which a broker has to know before."""


@dataclass
class Transport:
    """A bus with a topic that only this test uses."""

    bus: Bus
    topic: str

    def event(self, data: bytes = b"{}", *, key: str = "session-1", **attributes: str) -> Message:
        event = {"specversion": "1.0", "id": str(uuid4()), "source": "/flotilla/test", "type": self.topic}
        return Message(self.topic, key, event | {"partitionkey": key} | attributes, data)

    def subscribe(self, handler: Handler, group: str = "readers") -> AbstractAsyncContextManager[None]:
        return self.bus.subscribe(f"{group} of {self.topic}", frozenset({self.topic}), handler)

    async def publish(self, messages: Iterable[Message]) -> None:
        """Publish as an outbox does: each one again until it is safe."""
        await asyncio.gather(*map(self._until_safe, messages))

    async def _until_safe(self, message: Message) -> None:
        while True:
            try:
                return await self.bus.publish(message)
            except Transient:
                await asyncio.sleep(0.05)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka), "http"])
async def transport(request: pytest.FixtureRequest) -> AsyncGenerator[Transport]:
    topic = f"flotilla.tested-{uuid4()}.v1"
    async with AsyncExitStack() as stack:
        bus: Bus = MemoryBus(publish_seconds=1)
        if request.param == "kafka":
            url = request.getfixturevalue("kafka_url")
            await ensure_topics(url, frozenset({topic}), partitions=4)
            bus = KafkaBus(url, session_seconds=1.5)
        elif request.param == "http":
            groups = GROUPS.get(request.node.originalname, ("readers",))
            bus = await stack.enter_async_context(processes(topic, groups))
        yield Transport(bus, topic)
        await bus.close()


async def receive(seen: asyncio.Queue[Message], count: int) -> list[Message]:
    async with asyncio.timeout(30):
        return [await seen.get() for _ in range(count)]


async def take_all(seen: asyncio.Queue[Message], wanted: set[bytes]) -> None:
    async with asyncio.timeout(30):
        while wanted:
            wanted = wanted - {(await seen.get()).data}


async def test_message_arrives_with_equal_bytes_attributes_and_trace_context(transport: Transport) -> None:
    seen = asyncio.Queue[Message]()
    sent = transport.event(
        ALL_BYTES,
        datacontenttype="application/octet-stream",
        subject="Zoë ✓",
        time="2026-11-21T12:00:00.10+01:00",
        **TRACE,
    )
    async with transport.subscribe(seen.put):
        await transport.publish([sent])
        [arrived] = await receive(seen, 1)
    assert arrived == sent


async def test_message_whose_handler_raised_comes_again(transport: Transport) -> None:
    seen = asyncio.Queue[Message]()
    failures = iter([OSError("database away"), ValueError("bug"), asyncio.CancelledError()])

    async def handle(message: Message) -> None:
        if failure := next(failures, None):
            raise failure
        await seen.put(message)

    sent = transport.event()
    async with transport.subscribe(handle):
        await transport.publish([sent])
        assert await receive(seen, 1) == [sent]
    assert next(failures, None) is None


async def test_poison_holds_up_no_other_key(transport: Transport) -> None:
    seen = asyncio.Queue[Message]()

    async def handle(message: Message) -> None:
        if message.data == b"poison":
            raise ValueError(message.data)
        await seen.put(message)

    async with transport.subscribe(handle):
        poison = [transport.event(b"poison", key=f"poisoned-{n}") for n in range(20)]
        poisoning = asyncio.create_task(transport.publish(poison))
        sound = [transport.event(b"%d" % n, key=f"sound-{n}") for n in range(100)]
        await transport.publish(sound)
        await take_all(seen, {message.data for message in sound})
        poisoning.cancel()


async def test_one_key_keeps_its_order_also_past_a_failure(transport: Transport) -> None:
    seen = asyncio.Queue[Message]()
    failing = {b"1", b"3"}

    async def handle(message: Message) -> None:
        if message.data in failing:
            failing.remove(message.data)
            raise OSError
        await seen.put(message)

    async with transport.subscribe(handle):
        publishing = []
        for n in range(5):
            publishing.append(asyncio.create_task(transport.publish([transport.event(b"%d" % n)])))
            await asyncio.sleep(0)
        assert [message.data for message in await receive(seen, 5)] == [b"0", b"1", b"2", b"3", b"4"]
        await asyncio.gather(*publishing)


async def test_different_keys_are_handled_side_by_side(transport: Transport) -> None:
    together = asyncio.Barrier(5)

    async def handle(_: Message) -> None:
        await together.wait()

    async with transport.subscribe(handle):
        publishing = asyncio.create_task(transport.publish(transport.event(key=f"k{n}") for n in range(4)))
        await together.wait()
        await publishing


async def test_every_group_gets_everything(transport: Transport) -> None:
    one, other = asyncio.Queue[Message](), asyncio.Queue[Message]()
    sent = [transport.event(b"%d" % n, key=f"k{n}") for n in range(50)]
    async with transport.subscribe(one.put, "one"), transport.subscribe(other.put, "other"):
        await transport.publish(sent)
        for seen in (one, other):
            await take_all(seen, {message.data for message in sent})


async def test_message_is_kept_or_refused_without_a_subscriber(transport: Transport) -> None:
    seen = asyncio.Queue[Message]()
    sent = transport.event()
    publishing = asyncio.create_task(transport.publish([sent]))
    async with transport.subscribe(seen.put):
        assert await receive(seen, 1) == [sent]
        await publishing


async def test_group_gets_the_messages_that_were_published_after_its_last_member_left(transport: Transport) -> None:
    seen = asyncio.Queue[Message]()
    async with transport.subscribe(seen.put):
        await transport.publish([transport.event(b"before")])
        await receive(seen, 1)
    publishing = asyncio.create_task(transport.publish([transport.event(b"between")]))
    async with transport.subscribe(seen.put):
        await take_all(seen, {b"between"})
        await publishing


async def test_members_that_come_and_go_lose_nothing(transport: Transport) -> None:
    sent: set[bytes] = set()
    handled: defaultdict[str, list[bytes]] = defaultdict(list)
    changed, enough = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def member(name: str) -> AsyncGenerator[None]:
        async def handle(message: Message) -> None:
            await asyncio.sleep(0.002)
            handled[name].append(message.data)
            changed.set()

        async with transport.subscribe(handle):
            yield

    async def until(reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not reached():
                await changed.wait()
                changed.clear()

    async def keep_publishing() -> None:
        for wave in itertools.count():
            messages = [transport.event(b"%d/%d" % (wave, n), key=f"k{n}") for n in range(20)]
            await transport.publish(messages)
            sent.update(message.data for message in messages)
            if enough.is_set():
                return

    async with member("first"):
        publishing = asyncio.create_task(keep_publishing())
        await until(lambda: "first" in handled)
        async with member("second"):
            await until(lambda: "second" in handled)
            async with member("third"):
                await until(lambda: "third" in handled)
            left_at = len(handled["third"])
        before = len(handled["first"])
        await until(lambda: len(handled["first"]) > before)
        enough.set()
        await publishing
        await until(lambda: sent <= set(itertools.chain(*handled.values())))
    assert len(handled["third"]) == left_at
    repeated = sum(map(len, handled.values())) - len(sent)
    assert repeated < len(sent) / 2, "a member that leaves gives back only what it has not handled"


async def test_leaving_lets_a_begun_handler_finish_and_gives_the_rest_back(transport: Transport) -> None:
    begun, let_go, seen = asyncio.Event(), asyncio.Event(), asyncio.Queue[Message]()
    finished: list[bytes] = []

    async def dwell(message: Message) -> None:
        begun.set()
        await let_go.wait()
        finished.append(message.data)

    async with AsyncExitStack() as leaving:
        await leaving.enter_async_context(transport.subscribe(dwell))
        publishing = asyncio.create_task(transport.publish(transport.event(b"%d" % n) for n in range(3)))
        await begun.wait()
        left = asyncio.create_task(leaving.pop_all().aclose())
        await asyncio.sleep(0.1)
        assert not left.done()
        let_go.set()
        await left
    assert len(finished) == 1
    async with transport.subscribe(seen.put):
        rest = {b"0", b"1", b"2"} - set(finished)
        await take_all(seen, rest)
        await publishing
    assert seen.empty(), "what a member finished before it left does not come again"


async def test_handler_cut_off_when_the_drain_ends_is_repeated_by_another_member(transport: Transport) -> None:
    begun, cut, seen = asyncio.Event(), asyncio.Event(), asyncio.Queue[Message]()

    async def hang(_: Message) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    publishing = asyncio.create_task(transport.publish([transport.event(b"one")]))
    leaving = AsyncExitStack()
    await leaving.enter_async_context(transport.subscribe(hang))
    await begun.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(leaving.aclose(), 0.05)
    assert cut.is_set()
    async with transport.subscribe(seen.put):
        await take_all(seen, {b"one"})
        await publishing


async def test_too_large_a_message_is_refused_for_good(transport: Transport) -> None:
    seen = asyncio.Queue[Message]()
    async with transport.subscribe(seen.put):
        with pytest.raises(Permanent, match="takes at most"):
            await transport.bus.publish(transport.event(b"x" * MAX_MESSAGE))
        fits = transport.event(b"x" * (MAX_MESSAGE - 1000))
        await transport.publish([fits])
        assert await receive(seen, 1) == [fits]


async def test_nothing_is_published_on_a_closed_bus(transport: Transport) -> None:
    async with transport.subscribe(asyncio.Queue[Message]().put):
        await transport.bus.close()
        with pytest.raises(Transient):
            await transport.bus.publish(transport.event())

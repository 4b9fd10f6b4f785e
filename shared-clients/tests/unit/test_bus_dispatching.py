"""The dispatcher on its own; the contract suite shows the same promises through each transport."""

import asyncio
from contextvars import ContextVar

import pytest

from shared_clients.bus.dispatching import (
    FIRST_PAUSE_SECONDS,
    MAX_HANDLERS,
    MAX_PAUSE_SECONDS,
    Dispatcher,
    finish,
    pause_after,
)
from shared_clients.bus.port import Message


def message(key: str, data: bytes = b"", origin: str = "") -> Message:
    return Message("t", key, {}, data, origin)


class Worker:
    """Handles each message once `go` is set, and remembers the messages that it began."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.go = asyncio.Event()

    async def handle(self, message: Message) -> None:
        self.begun.append(message.data)
        await self.go.wait()


async def settle() -> None:
    """Let everything that can run now run."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("attempts", "longest"), [(1, FIRST_PAUSE_SECONDS), (3, 4 * FIRST_PAUSE_SECONDS), (50, MAX_PAUSE_SECONDS)]
)
def test_pauses_double_up_to_a_cap_with_jitter(attempts: int, longest: float) -> None:
    pauses = {pause_after(attempts) for _ in range(100)}
    assert longest / 2 <= min(pauses) < max(pauses) <= longest


async def test_member_runs_at_most_max_handlers_at_once() -> None:
    dispatcher, worker = Dispatcher(), Worker()
    dispatcher.join(worker.handle)
    deliveries = [dispatcher.enqueue(message(f"k{n}")) for n in range(MAX_HANDLERS + 5)]
    await settle()
    assert len(worker.begun) == MAX_HANDLERS
    worker.go.set()
    await asyncio.gather(*(delivery.handled for delivery in deliveries))
    assert len(worker.begun) == MAX_HANDLERS + 5


async def test_members_share_the_work_evenly() -> None:
    dispatcher, workers = Dispatcher(), [Worker(), Worker()]
    for worker in workers:
        worker.go.set()
        dispatcher.join(worker.handle)
    for n in range(10):
        await dispatcher.enqueue(message(f"k{n}")).handled
    assert [len(worker.begun) for worker in workers] == [5, 5]


async def test_messages_without_a_key_wait_only_for_those_of_the_same_origin() -> None:
    dispatcher, worker = Dispatcher(), Worker()
    dispatcher.join(worker.handle)
    for origin in ("kafka:t/0@1", "kafka:t/0@2"):
        dispatcher.enqueue(message("", origin.encode(), origin))
    await settle()
    assert worker.begun == [b"kafka:t/0@1", b"kafka:t/0@2"]
    worker.go.set()


async def test_removed_message_is_never_handled_and_its_successor_is() -> None:
    dispatcher, worker = Dispatcher(), Worker()
    worker.go.set()
    first, second, third = (dispatcher.enqueue(message("k", data)) for data in (b"1", b"2", b"3"))
    dispatcher.remove(second)
    dispatcher.remove(first)
    dispatcher.join(worker.handle)
    await third.handled
    assert worker.begun == [b"3"]


async def test_removing_a_message_that_waits_for_its_next_try_starts_the_next_one_at_once() -> None:
    dispatcher, worker, failed = Dispatcher(), Worker(), asyncio.Event()
    worker.go.set()

    async def handle(message: Message) -> None:
        if message.data == b"poison":
            failed.set()
            raise ValueError
        await worker.handle(message)

    dispatcher.join(handle)
    poison, sound = dispatcher.enqueue(message("k", b"poison")), dispatcher.enqueue(message("k", b"sound"))
    await failed.wait()
    await settle()
    dispatcher.remove(poison)
    await settle()
    assert sound.handled.done()


async def test_running_message_that_is_removed_finishes_and_is_not_tried_again() -> None:
    dispatcher, tries = Dispatcher(), 0

    async def handle(_: Message) -> None:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0)
        raise ValueError

    dispatcher.join(handle)
    delivery = dispatcher.enqueue(message("k"))
    await asyncio.sleep(0)
    dispatcher.remove(delivery)
    await settle()
    await asyncio.sleep(2 * FIRST_PAUSE_SECONDS)
    assert tries == 1
    assert not dispatcher.running()


async def test_removing_all_drops_waiting_messages_and_lets_running_handlers_finish() -> None:
    dispatcher, worker = Dispatcher(), Worker()
    dispatcher.join(worker.handle)
    begun, waiting = dispatcher.enqueue(message("k", b"1")), dispatcher.enqueue(message("k", b"2"))
    await settle()
    dispatcher.remove_all(running=False)
    worker.go.set()
    await begun.handled
    await settle()
    assert waiting.handled.cancelled()
    assert worker.begun == [b"1"]


async def test_removing_running_messages_too_ignores_their_results() -> None:
    dispatcher, worker = Dispatcher(), Worker()
    dispatcher.join(worker.handle)
    delivery = dispatcher.enqueue(message("k"))
    await settle()
    dispatcher.remove_all(running=True)
    worker.go.set()
    await settle()
    assert delivery.handled.cancelled()
    assert not dispatcher.running()


async def test_member_that_left_gets_no_more_messages() -> None:
    dispatcher, gone, staying = Dispatcher(), Worker(), Worker()
    for worker in (gone, staying):
        worker.go.set()
    dispatcher.leave(dispatcher.join(gone.handle))
    await finish()
    dispatcher.join(staying.handle)
    await dispatcher.enqueue(message("k", b"1")).handled
    assert (gone.begun, staying.begun) == ([], [b"1"])


async def test_handler_runs_in_the_context_of_its_member_not_of_the_publisher() -> None:
    who, seen = ContextVar[str]("who"), asyncio.Queue[str]()
    dispatcher = Dispatcher()

    async def handle(_: Message) -> None:
        await seen.put(who.get())

    who.set("member")
    dispatcher.join(handle)
    who.set("publisher")
    dispatcher.enqueue(message("k"))
    assert await seen.get() == "member"

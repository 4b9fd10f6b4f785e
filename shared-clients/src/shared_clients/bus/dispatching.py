"""Running handlers: the part of consuming that is the same for every transport.

Messages of one key are handled one after another; messages of different keys are handled at the same time, by any
member with a free slot. A message whose handler raised is tried again after a pause, and occupies no slot meanwhile: a
poison message delays its own key and nothing else. `memory` has one `Dispatcher` for each group and topic, shared by
its members; `http` has one for the process, and `kafka` one for each subscription.
"""

import asyncio
import random
from collections import deque
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Final

import structlog

from shared_clients.bus.port import Handler, Message
from shared_clients.errors import OutsideError

log = structlog.get_logger()

MAX_HANDLERS: Final = 16
"""Handlers that one member runs at once."""
FIRST_PAUSE_SECONDS: Final = 0.05
"""Before the second try of a message."""
MAX_PAUSE_SECONDS: Final = 5.0
"""Before any further try."""


def pause_after(attempts: int) -> float:
    """Return the seconds to wait after a number of failures: doubling, capped, with half of it jitter."""
    longest = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 20))
    return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret


@dataclass(eq=False, slots=True)
class Delivery:
    """A message on its way to a handler.

    Attributes:
        message: the message.
        handled: has a result once a handler returned; its cancellation means that nothing waits for the result.
        attempts: how often a handler raised.
    """

    message: Message
    handled: asyncio.Future[None]
    attempts: int = 0


@dataclass(eq=False, slots=True)
class Member:
    """A subscriber whose handlers run in the context in which it joined."""

    handler: Handler
    context: Context
    running: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class _KeyQueue:
    """The unfinished messages of one key; the first of them may be running or may wait for its next try."""

    deliveries: deque[Delivery] = field(default_factory=deque)
    running: bool = False
    retry: asyncio.TimerHandle | None = None


class Dispatcher:
    """Gives messages to the handlers of its members, in order within each key."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._queues: dict[str, _KeyQueue] = {}
        self._ready: dict[str, None] = {}

    def join(self, handler: Handler) -> Member:
        """Add a member, and start to give messages to its handler."""
        member = Member(handler, copy_context())
        self._members.append(member)
        self._start_ready()
        return member

    def leave(self, member: Member) -> None:
        """Remove a member; await `finish(member)` for the handlers that it has begun."""
        self._members.remove(member)

    def enqueue(self, message: Message) -> Delivery:
        """Queue a message behind those of its key."""
        delivery = Delivery(message, asyncio.get_running_loop().create_future())
        key = _queue_key(message)
        queue = self._queues.setdefault(key, _KeyQueue())
        queue.deliveries.append(delivery)
        if len(queue.deliveries) == 1:
            self._mark_ready(key)
        return delivery

    def remove(self, delivery: Delivery) -> None:
        """Drop a message; if its handler has begun, the handler finishes and is not tried again."""
        delivery.handled.cancel()
        key = _queue_key(delivery.message)
        queue = self._queues.get(key)
        if queue is None or delivery not in queue.deliveries:
            return
        is_first = queue.deliveries[0] is delivery
        if is_first and queue.running:
            return
        queue.deliveries.remove(delivery)
        if is_first:
            self._advance(key, queue)

    def remove_all(self, *, running: bool) -> None:
        """Drop every message that waits, and with `running` also those whose handlers run: none is tried again."""
        for queue in list(self._queues.values()):
            first = 0 if running or not queue.running else 1
            for delivery in reversed(list(queue.deliveries)[first:]):
                self.remove(delivery)

    def running(self) -> set[asyncio.Task[None]]:
        """Return the handlers that have begun."""
        return {task for member in self._members for task in member.running}

    def _mark_ready(self, key: str) -> None:
        self._ready[key] = None
        self._start_ready()

    def _start_ready(self) -> None:
        """Start ready messages on free members: the least busy first, and the longest idle among equals."""
        while self._ready and (free := [member for member in self._members if len(member.running) < MAX_HANDLERS]):
            member = min(free, key=lambda candidate: len(candidate.running))
            self._members.remove(member)
            self._members.append(member)
            key = next(iter(self._ready))
            del self._ready[key]
            self._start(member, key, self._queues[key])

    def _start(self, member: Member, key: str, queue: _KeyQueue) -> None:
        queue.running, queue.retry = True, None
        message = queue.deliveries[0].message
        task = asyncio.get_running_loop().create_task(_handle(member.handler, message), context=member.context.copy())
        member.running.add(task)
        task.add_done_callback(lambda task: self._on_done(task, member, key, queue))

    def _on_done(self, task: asyncio.Task[None], member: Member, key: str, queue: _KeyQueue) -> None:
        member.running.discard(task)
        queue.running = False
        delivery = queue.deliveries[0]
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None and not delivery.handled.cancelled():
            if task.cancelled() and member not in self._members:
                self._mark_ready(key)  # the member left, so this failure does not count as an attempt
            else:
                self._try_again(key, queue, error)
        else:
            if not delivery.handled.done():
                delivery.handled.set_result(None)
            queue.deliveries.popleft()
            self._advance(key, queue)
        self._start_ready()

    def _try_again(self, key: str, queue: _KeyQueue, error: BaseException) -> None:
        delivery = queue.deliveries[0]
        delivery.attempts += 1
        pause = pause_after(delivery.attempts)
        queue.retry = asyncio.get_running_loop().call_later(pause, self._mark_ready, key)
        log.warning(
            "handler_failed",
            topic=delivery.message.topic,
            event_id=delivery.message.attributes.get("id"),
            origin=delivery.message.origin,
            attempts=delivery.attempts,
            pause=round(pause, 3),
            error=f"{type(error).__name__}: {error}"[:200] if isinstance(error, OutsideError) else type(error).__name__,
        )

    def _advance(self, key: str, queue: _KeyQueue) -> None:
        """Make the next message of a key ready after its first one is gone, or drop the empty queue."""
        if queue.retry is not None:
            queue.retry.cancel()
            queue.retry = None
        self._ready.pop(key, None)
        if queue.deliveries:
            self._mark_ready(key)
        else:
            del self._queues[key]


async def finish(*members: Member) -> None:
    """Wait for the handlers that these members have begun before they left.

    A cancellation of this call, as by the deadline of a drain, cancels the handlers; their messages go to other
    members.
    """
    running = {task for member in members for task in member.running}
    if not running:
        return
    try:
        await asyncio.wait(running)
    except asyncio.CancelledError:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        raise


async def _handle(handler: Handler, message: Message) -> None:
    await handler(message)


def _queue_key(message: Message) -> str:
    """Return the key of a message, or its origin where it has no key and need not wait for other messages."""
    return message.key or message.origin

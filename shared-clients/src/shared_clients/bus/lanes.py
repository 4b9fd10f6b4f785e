"""Who handles what when: the part of consuming that is the same whatever carries the messages.

Messages of one key are one lane, handled one after another; lanes run side by side on whichever member has room. A
message whose handler raised goes again after a pause during which it takes up no room, so poison holds up its own key
and nothing else. `memory` has one `Lanes` for each group and topic, shared by its members; `kafka` has one for each
subscription.
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

WIDTH: Final = 16
"""Handlers that one member runs at once."""
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 5.0
"""Seconds before the second try of a message, and at most before any."""


def pause_after(attempts: int) -> float:
    """Return the seconds to wait after a number of failures: doubling, capped, with half of it jitter."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts - 1, 20)) * random.uniform(0.5, 1)  # noqa: S311 - jitter


@dataclass(eq=False, slots=True)
class Delivery:
    """A message on its way to a handler.

    Attributes:
        handled: has a result once a handler returned; cancelling it says that nobody waits any longer.
    """

    message: Message
    handled: asyncio.Future[None]
    attempts: int = 0


@dataclass(eq=False, slots=True)
class Member:
    """One who handles messages; its handlers run in the context in which it joined."""

    handler: Handler
    context: Context
    running: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class _Lane:
    queue: deque[Delivery] = field(default_factory=deque)
    running: bool = False
    retry: asyncio.TimerHandle | None = None


class Lanes:
    def __init__(self) -> None:
        self._members: list[Member] = []
        self._lanes: dict[str, _Lane] = {}
        self._ready: dict[str, None] = {}

    def join(self, handler: Handler) -> Member:
        """Give messages to this handler too."""
        member = Member(handler, copy_context())
        self._members.append(member)
        self._start()
        return member

    def leave(self, member: Member) -> None:
        """Give the member nothing more; what it has begun is `finish`ed."""
        self._members.remove(member)

    def offer(self, message: Message) -> Delivery:
        """Queue a message behind those of its key."""
        delivery = Delivery(message, asyncio.get_running_loop().create_future())
        name = _name(message)
        lane = self._lanes.setdefault(name, _Lane())
        lane.queue.append(delivery)
        if len(lane.queue) == 1:
            self._wake(name)
        return delivery

    def withdraw(self, delivery: Delivery) -> None:
        """Forget a message; where its handler has begun, it is only not tried again."""
        delivery.handled.cancel()
        name = _name(delivery.message)
        lane = self._lanes.get(name)
        if lane is None or delivery not in lane.queue or (lane.running and lane.queue[0] is delivery):
            return
        heads = lane.queue[0] is delivery
        lane.queue.remove(delivery)
        if heads:
            self._next(name, lane)

    def clear(self, *, begun: bool) -> None:
        """Forget every message that waits, and with `begun` also those whose handlers run: none is tried again."""
        for lane in list(self._lanes.values()):
            first = 0 if begun or not lane.running else 1
            for delivery in reversed(list(lane.queue)[first:]):
                self.withdraw(delivery)

    def running(self) -> set[asyncio.Task[None]]:
        """Return the handlers that have begun."""
        return {task for member in self._members for task in member.running}

    def _wake(self, name: str) -> None:
        self._ready[name] = None
        self._start()

    def _start(self) -> None:
        """Start what is ready on members with room, the least busy first, the longest idle among equals."""
        while self._ready and (free := [member for member in self._members if len(member.running) < WIDTH]):
            member = min(free, key=lambda candidate: len(candidate.running))
            self._members.remove(member)
            self._members.append(member)
            name = next(iter(self._ready))
            del self._ready[name]
            self._run(member, name, self._lanes[name])

    def _run(self, member: Member, name: str, lane: _Lane) -> None:
        lane.running, lane.retry = True, None
        delivery = lane.queue[0]
        task = asyncio.get_running_loop().create_task(
            _handled(member.handler, delivery.message), context=member.context.copy()
        )
        member.running.add(task)
        task.add_done_callback(lambda task: self._finish(task, member, name, lane))

    def _finish(self, task: asyncio.Task[None], member: Member, name: str, lane: _Lane) -> None:
        member.running.discard(task)
        lane.running = False
        delivery = lane.queue[0]
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None and not delivery.handled.cancelled():
            self._try_again(name, lane, error, given_back=task.cancelled() and member not in self._members)
        else:
            if not delivery.handled.done():
                delivery.handled.set_result(None)
            lane.queue.popleft()
            self._next(name, lane)
        self._start()

    def _try_again(self, name: str, lane: _Lane, error: BaseException, *, given_back: bool) -> None:
        delivery = lane.queue[0]
        if given_back:
            self._wake(name)
            return
        delivery.attempts += 1
        pause = pause_after(delivery.attempts)
        lane.retry = asyncio.get_running_loop().call_later(pause, self._wake, name)
        log.warning(
            "handler_failed",
            topic=delivery.message.topic,
            event_id=delivery.message.attributes.get("id"),
            origin=delivery.message.origin,
            attempts=delivery.attempts,
            pause=round(pause, 3),
            error=f"{type(error).__name__}: {error}"[:200] if isinstance(error, OutsideError) else type(error).__name__,
        )

    def _next(self, name: str, lane: _Lane) -> None:
        """The lane's head is gone: let the next one run, or end the lane."""
        if lane.retry is not None:
            lane.retry.cancel()
            lane.retry = None
        self._ready.pop(name, None)
        if lane.queue:
            self._wake(name)
        else:
            del self._lanes[name]


async def finish(*members: Member) -> None:
    """Wait for the handlers that members who left have begun.

    Cancelling this, as the deadline of a drain does, cancels those handlers; their messages go to other members.
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


async def _handled(handler: Handler, message: Message) -> None:
    await handler(message)


def _name(message: Message) -> str:
    """A message without a key is a lane of its own where its transport can tell it from others."""
    return message.key or message.origin

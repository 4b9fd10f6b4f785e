"""Deliver one event to one trigger's subscriber: until it has it, or the event is durably dead, or nobody waits.

Nothing is kept here: who awaits `deliver_event` has promised nothing to the sender yet, and cancelling it is always
safe. Between two tries an event takes up none of its subscriber's requests.
"""

import asyncio
import random
from base64 import b64encode
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Final

import structlog

from mock_eventing import metrics
from mock_eventing.domain.events import Event
from mock_eventing.domain.retrying import MAX_ERROR_BYTES, UNANSWERED, Answer, Verdict, judge, pause_before
from mock_eventing.domain.triggers import Trigger
from mock_eventing.errors import NotAccepted
from mock_eventing.ports import DeadLetters, Subscribers
from shared_clients.errors import Transient

log = structlog.get_logger()

COUNTED: Final = ("delivered", "retried", "dead", "returned")
"""What becomes of an event at a trigger; a returned one stays with its sender."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What a delivery needs.

    Attributes:
        subscribers: those who get events.
        dead_letters: keeps what no sink took; None where nothing does.
        stopping: set when this process is going away: what has begun ends, and nothing is tried again.
    """

    subscribers: Subscribers
    dead_letters: DeadLetters | None
    stopping: asyncio.Event


@dataclass(eq=False, slots=True)
class Lane:
    """A trigger's own room, so that a slow subscriber holds up nobody else.

    Attributes:
        trigger: whose it is.
        requests: how many more may be open at once.
        events: how many are on their way.
        counts: what became of events so far.
    """

    trigger: Trigger
    requests: asyncio.Semaphore
    events: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))

    def begin(self, delivery: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Start to deliver an event, which counts here until it has ended."""
        self.events += 1
        task = asyncio.create_task(delivery)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        self.events -= 1
        if task.cancelled() or task.exception():
            self.count("returned")

    def count(self, outcome: str) -> None:
        self.counts[outcome] += 1
        metrics.EVENTING_DELIVERIES.labels(outcome).inc()


async def deliver_event(event: Event, lane: Lane, outside: Outside) -> None:
    """Return when the subscriber has the event, or the event is durably dead.

    Raises:
        NotAccepted: neither is so, and trying on is of no use.
    """
    trigger = lane.trigger
    answer = await _answer(event, trigger.uri, lane, outside)
    if judge(answer.status) is Verdict.DONE:
        lane.count("delivered")
        return
    log.warning("delivery_failed", trigger=trigger.name, event_id=event.attributes["id"], status=answer.status)
    await _bury(event.with_attributes(_error(trigger.uri, answer)), lane, outside)
    lane.count("dead")


async def _answer(event: Event, uri: str, lane: Lane, outside: Outside) -> Answer:
    """Try until there is an answer that no retry can better, or no retry is left; return the last one."""
    delivery = lane.trigger.delivery
    retry = 0
    while True:
        async with lane.requests:
            answer = await outside.subscribers.send(uri, event, delivery)
        if judge(answer.status) is not Verdict.AGAIN or retry == delivery.retry:
            return answer
        retry += 1
        await _pause(pause_before(retry, delivery, answer, random.random()), outside.stopping)  # noqa: S311 - jitter
        lane.count("retried")


async def _pause(seconds: float, stopping: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return
    raise NotAccepted("the broker is going away before the event is delivered")


async def _bury(letter: Event, lane: Lane, outside: Outside) -> None:
    sink = lane.trigger.delivery.dead_letter_sink
    if sink is not None:
        answer = await _answer(letter, sink.uri, lane, outside)
        if judge(answer.status) is Verdict.DONE:
            return
    if outside.dead_letters is None:
        lacking = "its dead-letter sink refuses it" if sink else "it has no dead-letter sink"
        raise NotAccepted(f"the trigger {lane.trigger.name} cannot deliver the event, and {lacking}")
    try:
        await outside.dead_letters.keep(letter)
    except Transient as error:
        raise NotAccepted(str(error)) from error


def _error(uri: str, answer: Answer) -> dict[str, str]:
    """Return Knative's extension attributes about the last try."""
    return {
        "knativeerrordest": uri,
        "knativeerrorcode": str(UNANSWERED if answer.status is None else answer.status),
        "knativeerrordata": b64encode(answer.body[:MAX_ERROR_BYTES]).decode(),
    }

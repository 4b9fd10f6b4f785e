"""Deliver one event to one trigger's subscriber, with Knative's retries and dead-letter sink.

A delivery stores nothing, and its sender has no 202 yet, so it can be cancelled at any time. An event between two tries
takes up none of its subscriber's concurrent requests.
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
from mock_eventing.domain.retrying import MAX_ERROR_BYTES, NO_ANSWER_CODE, Answer, Verdict, judge, pause_before
from mock_eventing.domain.triggers import Trigger
from mock_eventing.errors import NotAccepted
from mock_eventing.ports import DeadLetterStore, Subscribers
from shared_clients.errors import Unconfirmed

log = structlog.get_logger()

OUTCOMES: Final = ("delivered", "retried", "dead", "returned")
"""The outcomes that are counted for each trigger; a returned event stays with its sender."""


@dataclass(frozen=True, slots=True)
class DeliveryDependencies:
    """The dependencies of a delivery.

    Attributes:
        subscribers: sends events to subscribers and dead-letter sinks.
        dead_letters: stores the events that no sink took; None where there is no store.
        stopping: set when this process is stopping. Requests that have begun then end, and no delivery is retried.
    """

    subscribers: Subscribers
    dead_letters: DeadLetterStore | None
    stopping: asyncio.Event


@dataclass(eq=False, slots=True)
class TriggerDeliveries:
    """The deliveries of one trigger, bounded apart from other triggers, so that a slow subscriber delays only itself.

    Attributes:
        trigger: the trigger.
        concurrency: a slot for each request to the subscriber at once.
        pending: events that are being delivered, or wait for their next try.
        counts: the number of events by outcome.
    """

    trigger: Trigger
    concurrency: asyncio.Semaphore
    pending: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))

    def start(self, delivery: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Start a delivery, which is pending until its task ends."""
        self.pending += 1
        task = asyncio.create_task(delivery)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        self.pending -= 1
        if task.cancelled() or task.exception():
            self.count("returned")

    def count(self, outcome: str) -> None:
        self.counts[outcome] += 1
        metrics.EVENTING_DELIVERIES.labels(outcome).inc()


async def deliver_event(event: Event, deliveries: TriggerDeliveries, dependencies: DeliveryDependencies) -> None:
    """Deliver an event, and return when the subscriber has it or it is a durable dead letter.

    Raises:
        NotAccepted: the event is neither delivered nor a dead letter, and this broker gives up.
    """
    trigger = deliveries.trigger
    answer = await _send_with_retries(event, trigger.uri, deliveries, dependencies)
    if judge(answer.status) is Verdict.DELIVERED:
        deliveries.count("delivered")
        return
    log.warning("delivery_failed", trigger=trigger.name, event_id=event.attributes["id"], status=answer.status)
    await _dead_letter(event.with_attributes(_error_attributes(trigger.uri, answer)), deliveries, dependencies)
    deliveries.count("dead")


async def _send_with_retries(
    event: Event, uri: str, deliveries: TriggerDeliveries, dependencies: DeliveryDependencies
) -> Answer:
    """Send an event until its answer is final or no retry is left, and return the last answer."""
    delivery = deliveries.trigger.delivery
    retry = 0
    while True:
        async with deliveries.concurrency:
            answer = await dependencies.subscribers.send(uri, event, delivery)
        if judge(answer.status) is not Verdict.RETRY or retry == delivery.retry:
            return answer
        retry += 1
        await _pause(pause_before(retry, delivery, answer, random.random()), dependencies.stopping)  # noqa: S311 - jitter
        deliveries.count("retried")


async def _pause(seconds: float, stopping: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return
    raise NotAccepted("the broker is stopping, and the event is not delivered")


async def _dead_letter(event: Event, deliveries: TriggerDeliveries, dependencies: DeliveryDependencies) -> None:
    """Send an event to the trigger's dead-letter sink, or store it where no sink takes it.

    Raises:
        NotAccepted: neither a sink nor the store has taken the event.
    """
    sink = deliveries.trigger.delivery.dead_letter_sink
    if sink is not None:
        answer = await _send_with_retries(event, sink.uri, deliveries, dependencies)
        if judge(answer.status) is Verdict.DELIVERED:
            return
    if dependencies.dead_letters is None:
        lacking = "its dead-letter sink refuses it" if sink else "it has no dead-letter sink"
        raise NotAccepted(f"the trigger {deliveries.trigger.name} cannot deliver the event, and {lacking}")
    try:
        await dependencies.dead_letters.append(event)
    except Unconfirmed as error:
        raise NotAccepted(str(error)) from error


def _error_attributes(uri: str, answer: Answer) -> dict[str, str]:
    """Return Knative's extension attributes for the last failed try."""
    return {
        "knativeerrordest": uri,
        "knativeerrorcode": str(NO_ANSWER_CODE if answer.status is None else answer.status),
        "knativeerrordata": b64encode(answer.body[:MAX_ERROR_BYTES]).decode(),
    }

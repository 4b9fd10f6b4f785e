"""Accept events: answer a sender only when every matching subscriber has its events, or they are durable dead letters.

The broker stores nothing that a crash could lose, so the sender waits for the deliveries. An event that is not
delivered in time stays with its sender. The sender sends it again, also to the subscribers that have it already; their
inboxes ignore the duplicate.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from mock_eventing.domain.events import Event
from mock_eventing.domain.triggers import Address, Triggers
from mock_eventing.errors import BrokerNotFound, NotAccepted
from mock_eventing.usecases.deliver_event import DeliveryDependencies, TriggerDeliveries, deliver_event

REQUEST_OVERHEAD_BYTES: Final = 4096
"""Bytes of memory that are reserved for a request in addition to its body."""


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """The limits of pending events; the settings of the same names describe them."""

    accept_seconds: float
    held_bytes: int
    trigger_events: int
    trigger_requests: int


@dataclass(frozen=True, slots=True)
class MatchedEvent:
    """An event that a trigger's filters match."""

    event: Event
    deliveries: TriggerDeliveries


class Broker:
    """Accepts events for every broker of the triggers' file.

    Args:
        triggers: the triggers, by the address of their broker.
        limits: the limits of pending events.
        dependencies: the dependencies of a delivery.
    """

    def __init__(self, triggers: Triggers, limits: BrokerLimits, dependencies: DeliveryDependencies) -> None:
        self._limits = limits
        self._dependencies = dependencies
        self._held_bytes = 0
        self._deliveries: Mapping[Address, Sequence[TriggerDeliveries]] = {
            address: [TriggerDeliveries(one, asyncio.Semaphore(limits.trigger_requests)) for one in brokers_triggers]
            for address, brokers_triggers in triggers.items()
        }

    @property
    def deliveries(self) -> list[TriggerDeliveries]:
        """The deliveries of each trigger of each broker."""
        return [one for deliveries in self._deliveries.values() for one in deliveries]

    @contextmanager
    def reserving_bytes(self, body_bytes: int) -> Iterator[None]:
        """Reserve the memory of a request before its body is read.

        Raises:
            NotAccepted: the limit is reached, or this process is stopping.
        """
        if self._dependencies.stopping.is_set():
            raise NotAccepted("the broker is stopping")
        size = body_bytes + REQUEST_OVERHEAD_BYTES
        if self._held_bytes + size > self._limits.held_bytes:
            raise NotAccepted(
                f"the broker holds {self._held_bytes} bytes of events; at most {self._limits.held_bytes} are allowed"
            )
        self._held_bytes += size
        try:
            yield
        finally:
            self._held_bytes -= size

    async def accept(self, address: Address | None, events: Sequence[Event]) -> None:
        """Deliver all events, and return when each is with every matching subscriber or a durable dead letter.

        Args:
            address: the broker's address; None stands for the only broker of the file, or for default/default if there
                are several.
            events: all of them are accepted, or none.

        Raises:
            BrokerNotFound: no trigger or broker document names the address.
            NotAccepted: not every event was delivered in time; some subscribers may have some of the events.
        """
        candidates = self._deliveries_at(address)
        matched = [
            MatchedEvent(event, one) for event in events for one in candidates if one.trigger.matches(event.attributes)
        ]
        self._check_trigger_limits([one.deliveries for one in matched])
        if matched:
            await self._deliver(matched)

    async def _deliver(self, matched: Sequence[MatchedEvent]) -> None:
        tasks = {
            one.deliveries.start(deliver_event(one.event, one.deliveries, self._dependencies)): one for one in matched
        }
        try:
            await asyncio.wait(tasks, timeout=self._limits.accept_seconds)
        finally:
            late = {one.deliveries.trigger.name for task, one in tasks.items() if task.cancel()}
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if late:
            slow = ", ".join(sorted(late))
            raise NotAccepted(f"not delivered within {self._limits.accept_seconds:g} s to {slow}")
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def _deliveries_at(self, address: Address | None) -> Sequence[TriggerDeliveries]:
        if address is None:
            address = next(iter(self._deliveries)) if len(self._deliveries) == 1 else Address()
        try:
            return self._deliveries[address]
        except KeyError:
            known = ", ".join(f"/{one}" for one in self._deliveries)
            raise BrokerNotFound(f"there is no broker /{address}; there are {known}") from None

    def _check_trigger_limits(self, wanted: Sequence[TriggerDeliveries]) -> None:
        for deliveries, more in Counter(wanted).items():
            if deliveries.pending + more > self._limits.trigger_events:
                raise NotAccepted(
                    f"the trigger {deliveries.trigger.name} has {deliveries.pending} pending events already;"
                    f" at most {self._limits.trigger_events} are allowed"
                )

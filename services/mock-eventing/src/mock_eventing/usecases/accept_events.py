"""Accept events: take them on only when every matching subscriber has them, or they are durably dead.

The broker keeps nothing that a crash could lose. The sender waits; what is not delivered in time stays the sender's,
who sends it again, to those too who have it already: their inboxes make it once.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from mock_eventing.domain.events import Event
from mock_eventing.domain.triggers import Address, Triggers
from mock_eventing.errors import NoSuchBroker, NotAccepted
from mock_eventing.usecases.deliver_event import Lane, Outside, deliver_event

REQUEST_BYTES: Final = 4096
"""What a request counts beside its body."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be on its way; see the settings of the same names."""

    accept_seconds: float
    held_bytes: int
    trigger_events: int
    trigger_requests: int


class Broker:
    """The triggers of every broker, and what is on its way to them.

    Args:
        triggers: as read from the file.
        bounds: of what it holds.
        outside: where it delivers to.
    """

    def __init__(self, triggers: Triggers, bounds: Bounds, outside: Outside) -> None:
        self._bounds = bounds
        self._outside = outside
        self._held = 0
        self._lanes: Mapping[Address, Sequence[Lane]] = {
            address: [Lane(trigger, asyncio.Semaphore(bounds.trigger_requests)) for trigger in of_it]
            for address, of_it in triggers.items()
        }

    @property
    def lanes(self) -> list[Lane]:
        return [lane for lanes in self._lanes.values() for lane in lanes]

    @contextmanager
    def holding(self, body_bytes: int) -> Iterator[None]:
        """Make room for a request before it is read.

        Raises:
            NotAccepted: there is none, or this process is going away.
        """
        if self._outside.stopping.is_set():
            raise NotAccepted("the broker is going away")
        size = body_bytes + REQUEST_BYTES
        if self._held + size > self._bounds.held_bytes:
            raise NotAccepted(f"the broker holds {self._held} bytes of events; at most {self._bounds.held_bytes}")
        self._held += size
        try:
            yield
        finally:
            self._held -= size

    async def accept(self, address: Address | None, events: Sequence[Event]) -> None:
        """Return when every event is with every subscriber that wants it, or durably dead.

        Args:
            address: the broker's; None is the only one there is, or default/default among several.
            events: all of them are accepted, or none.

        Raises:
            NoSuchBroker: nobody has declared it.
            NotAccepted: it could not be done in time; some subscribers may have some of the events.
        """
        lanes = self._found(address)
        work = [(event, lane) for event in events for lane in lanes if lane.trigger.wants(event.attributes)]
        self._check_room([lane for _, lane in work])
        if work:
            await self._deliver(work)

    async def _deliver(self, work: Sequence[tuple[Event, Lane]]) -> None:
        tasks = {lane.begin(deliver_event(event, lane, self._outside)): lane for event, lane in work}
        try:
            await asyncio.wait(tasks, timeout=self._bounds.accept_seconds)
        finally:
            late = {lane.trigger.name for task, lane in tasks.items() if task.cancel()}
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if late:
            slow = ", ".join(sorted(late))
            raise NotAccepted(f"not delivered within {self._bounds.accept_seconds:g} s to {slow}")
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def _found(self, address: Address | None) -> Sequence[Lane]:
        if address is None:
            address = next(iter(self._lanes)) if len(self._lanes) == 1 else Address()
        try:
            return self._lanes[address]
        except KeyError:
            known = ", ".join(f"/{one}" for one in self._lanes)
            raise NoSuchBroker(f"there is no broker /{address}; there are {known}") from None

    def _check_room(self, lanes: Sequence[Lane]) -> None:
        for lane, more in Counter(lanes).items():
            if lane.events + more > self._bounds.trigger_events:
                raise NotAccepted(f"the trigger {lane.trigger.name} has {lane.events} events on their way already")

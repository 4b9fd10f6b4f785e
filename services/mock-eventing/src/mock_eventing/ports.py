"""The ports of the broker: subscribers that get events, and a store for events that no subscriber or sink took."""

from typing import Protocol

from mock_eventing.domain.events import Event
from mock_eventing.domain.retrying import SubscriberResponse
from mock_eventing.domain.triggers import DeliverySpec


class Subscribers(Protocol):
    async def send(self, uri: str, event: Event, delivery: DeliverySpec) -> SubscriberResponse:
        """Try once to deliver an event; a failed connection is an answer too."""


class DeadLetterStore(Protocol):
    async def append(self, event: Event) -> None:
        """Store an event, and return when a crash can no longer lose it.

        Raises:
            Transient: the event cannot be stored now.
        """

"""What is outside of the broker: those who get events, and the place for events that nobody took."""

from typing import Protocol

from mock_eventing.domain.events import Event
from mock_eventing.domain.retrying import Answer
from mock_eventing.domain.triggers import Delivery


class Subscribers(Protocol):
    async def send(self, uri: str, event: Event, delivery: Delivery) -> Answer:
        """Try once to deliver an event; whatever goes wrong is an answer too."""


class DeadLetters(Protocol):
    async def keep(self, letter: Event) -> None:
        """Return when a crash can no longer lose the letter.

        Raises:
            Transient: it cannot be kept now.
        """

"""The greeter's lines in the two catalogues: of services, and of events."""

from shared_models.catalog import EventType
from shared_models.requests import OpenModel, Principal
from shared_models.services import CatalogueEntry


class GreetingAsked(OpenModel):
    name: str
    principal: Principal


class GreetingEnded(OpenModel):
    outcome: str
    tries: int


GREETER = CatalogueEntry("greeter", schema="greeter", audience=True, dead_letters=True)
ASKING, LISTENING = frozenset({"asking"}), frozenset({"listening"})
GREETS = frozenset({GREETER.name})
ASKED = EventType("flotilla.greeting.asked.v1", GreetingAsked, ASKING, GREETS, "flotilla.asked-greetings", "person")
SENT = EventType("flotilla.greeting.sent.v1", GreetingEnded, GREETS, LISTENING, "flotilla.sent-greetings", "person")
FAILED = EventType("flotilla.greeting.failed.v1", GreetingEnded, GREETS, LISTENING, "flotilla.sent-greetings", "person")

"""Places: how many requests this process has in hand, and in which stage of their lives.

A request whose body is still coming, one that is being worked on, and one that only waits (a stream, a call that waits
for a result) cost different things, so each stage has its own bound: five hundred slow bodies must not keep out
who has sent all of his, and a thousand open streams not who asks something new.
"""

from collections.abc import MutableMapping
from enum import StrEnum
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from api_gateway.admission.limits import AdmissionLimits

KEY: Final = "flotilla.place"
"""Where a request's scope has its place."""

type Fields = list[tuple[bytes, bytes]]


class Stage(StrEnum):
    """Also the names under which refusals are counted."""

    RECEIVING = "receiving"
    IN_FLIGHT = "in_flight"
    OPEN = "open"
    GONE = "gone"


class Places:
    """All places of this process."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._most = {
            Stage.RECEIVING: limits.receiving,
            Stage.IN_FLIGHT: limits.in_flight,
            Stage.OPEN: limits.open,
        }
        self._tenant_open = max(1, limits.tenant_open // limits.replicas)
        self._taken = dict.fromkeys(self._most, 0)
        self._open_of: dict[str, int] = {}

    def taken(self, stage: Stage) -> int:
        return self._taken[stage]

    def full(self, stage: Stage) -> bool:
        return self._taken[stage] >= self._most[stage]

    def tenant_full(self, tenant: str) -> bool:
        return self._open_of.get(tenant, 0) >= self._tenant_open

    def move(self, place: "Place", stage: Stage, tenant: str = "") -> None:
        """Let a request be in another stage; of what waits, each tenant has its part."""
        if place.stage is stage:
            return
        if place.stage in self._taken:
            self._taken[place.stage] -= 1
        if place.stage is Stage.OPEN:
            _count(self._open_of, place.tenant, -1)
        if stage in self._taken:
            self._taken[stage] += 1
        if stage is Stage.OPEN:
            _count(self._open_of, tenant, 1)
        place.stage, place.tenant = stage, tenant


class Place:
    """The place of one request.

    Attributes:
        stage: of its life.
        tenant: whose it is, where it is open.
        fields: to be added to the head of its answer.
    """

    def __init__(self, places: Places, stage: Stage) -> None:
        self.stage = Stage.GONE
        self.tenant = ""
        self.fields: Fields = []
        self._places = places
        places.move(self, stage)

    def leave(self) -> None:
        self._places.move(self, Stage.GONE)

    def receiving(self, receive: Receive) -> Receive:
        """Return a `receive` that sees the body end."""

        async def received() -> Message:
            message = await receive()
            if self.stage is Stage.RECEIVING and not message.get("more_body", False):
                self._places.move(self, Stage.IN_FLIGHT)
            return message

        return received

    def sending(self, send: Send) -> Send:
        """Return a `send` that adds the fields."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and self.fields:
                message = {**message, "headers": [*message["headers"], *self.fields]}
            await send(message)

        return sent


def place_of(scope: Scope) -> Place:
    place: Place = scope[KEY]
    return place


def _count(counts: MutableMapping[str, int], key: str, change: int) -> None:
    left = counts.get(key, 0) + change
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)

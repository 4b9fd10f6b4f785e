"""The bus over HTTP: a Knative broker, or mock-eventing, between services that only know its address.

Publishing is a POST to the broker's ingress; its 202 says that the event is safe there. Receiving is the broker's POST
to this process, at the door that `web.event_routes` opens: it is answered when the event has been handled, and not
before. Which events come is decided by Triggers, made from the catalogue; a process is one subscriber.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

import structlog

from shared_clients.bus.codec import check_size
from shared_clients.bus.http_codec import decode_post, encode_post
from shared_clients.bus.lanes import Lanes, finish
from shared_clients.bus.port import Handler, Message
from shared_clients.errors import OutsideError, Permanent, Transient
from shared_clients.outbound import Outbound

log = structlog.get_logger()

PUBLISH_SECONDS: Final = 15.0
REQUESTS: Final = 128
"""Requests of the broker that this process holds at once, at most `MAX_BODY` each."""

_URL: Final = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[^\s:/@?#\[\]]+)(:[0-9]{1,5})?(/[^\s?#@]*)?")
_LATER: Final = frozenset({404, 408, 409, 425, 429})
"""Refusals that Knative's contract says to try again, beside all of 5xx."""
_OUR_FAULT: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Handshake:
    """How this process and its broker know each other.

    Attributes:
        token: gives the bearer token that the broker wants, as it is now.
        admit: returns when the given `Authorization` is that of the broker, and raises otherwise.
    """

    token: Callable[[], str]
    admit: Callable[[str], Awaitable[None]]


def ingress_of(url: str) -> str:
    """Return the address that events are sent to.

    Raises:
        ValueError: it is not of the form below; the message does not repeat it, because a secret may be in it.
    """
    if not _URL.fullmatch(url):
        raise ValueError("the bus URL is not of the form http://host:port[/path], without user or options")
    return url


class HttpBus:
    """A bus that is a broker's ingress on one side, and this process's door on the other.

    Args:
        url: of the ingress.
        handshake: how the two know each other.
        patience: seconds that the door waits for handlers, which try again meanwhile, before it says "later".
    """

    def __init__(self, url: str, handshake: Handshake, *, patience: float = 5.0) -> None:
        self._url = ingress_of(url)
        self._handshake = handshake
        self._patience = patience
        self._broker = Outbound(url)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._lanes = Lanes()
        self._group = ""
        self._members = 0
        self._requests = 0
        self._closed = False

    async def publish(self, message: Message) -> None:
        check_size(message)
        headers, body = encode_post(message)
        if self._closed:
            raise Transient(f"a message for {message.topic} is kept: the bus is closed")
        headers = {**headers, "Authorization": f"Bearer {self._handshake.token()}"}
        try:
            async with asyncio.timeout(PUBLISH_SECONDS), self._turn(message.key):
                answer = await self._broker.once(
                    "POST", self._url, content=body, headers=headers, deadline=PUBLISH_SECONDS
                )
        except TimeoutError:
            raise Transient(f"a message for {message.topic} is kept: those of its key before it take long") from None
        if not answer.is_success:
            raise _refusal(message, answer.status_code, answer.text[:200], answer.headers.get("Retry-After", ""))

    @asynccontextmanager
    async def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> AsyncGenerator[None]:
        if self._group not in {"", group}:
            msg = f"this process is the subscriber {self._group}, and cannot be {group} too ({', '.join(topics)})"
            raise ValueError(msg)
        self._group = group
        member = self._lanes.join(handler)
        self._members += 1
        try:
            yield
        finally:
            self._members -= 1
            self._lanes.leave(member)
            await finish(member)

    async def take(
        self, headers: Iterable[tuple[bytes, bytes]], authorization: str, body: Callable[[], Awaitable[bytes]]
    ) -> None:
        """Handle what the broker has posted; returning means that it may forget it.

        Args:
            headers: as ASGI has them.
            authorization: the header of that name.
            body: reads the body; called once the sender is known and there is room.

        Raises:
            Transient: it has to be posted again.
            Problem: the sender is not our broker.
        """
        await self._handshake.admit(authorization)
        if not self._members:
            raise Transient("an event is left with the broker: nobody in this process takes events now")
        if self._requests >= REQUESTS:
            raise Transient(f"an event is left with the broker: {REQUESTS} of its requests are being handled")
        self._requests += 1
        try:
            await self._handle(decode_post(headers, await body()))
        finally:
            self._requests -= 1

    async def close(self) -> None:
        self._closed = True
        await self._broker.close()

    async def _handle(self, messages: Sequence[Message]) -> None:
        offered = [self._lanes.offer(message) for message in messages]
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.gather(*(delivery.handled for delivery in offered))
        except TimeoutError:
            raise Transient(f"an event is left with the broker: not handled within {self._patience} s") from None
        finally:
            for delivery in offered:
                self._lanes.withdraw(delivery)

    def _turn(self, key: str) -> AbstractAsyncContextManager[None]:
        """Let one event of a key out at a time: their order is not promised, and costs nothing where all is well."""
        return self._turns.setdefault(key, asyncio.Lock()) if key else nullcontext()


def _refusal(message: Message, status: int, reason: str, retry_after: str) -> OutsideError:
    """Return what it means that the broker does not have the message.

    Whoever is not let in, or is sent elsewhere, has a wrong setting; that is the operator's fault, not the event's: it
    stays in its outbox until the setting is right.
    """
    what = f"a message for {message.topic} is not at the broker: it answered {status}"
    if status in _OUR_FAULT or status < 400:
        log.error("broker_refuses_us", status=status, then="events stay in their outbox")
        return Transient(what)
    if status in _LATER or status >= 500:
        return Transient(what, float(retry_after[:9]) if retry_after.isascii() and retry_after.isdigit() else None)
    return Permanent(f"{what} {reason!r}")

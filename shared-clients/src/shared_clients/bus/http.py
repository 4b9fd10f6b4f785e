"""The bus over HTTP: a Knative broker, or mock-eventing, between services that know only its address.

To publish, this process POSTs an event to the broker's ingress; a 202 means that the event is safe there. To deliver,
the broker POSTs an event to this process, at the route that `web.event_routes` adds; the answer comes only after the
event has been handled. Triggers, made from the catalogue, select the events; a process is one subscriber.
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
from shared_clients.bus.dispatching import Dispatcher, finish
from shared_clients.bus.http_codec import decode_post, encode_post
from shared_clients.bus.port import Handler, Message
from shared_clients.errors import OutsideError, Permanent, Transient
from shared_clients.outbound import HttpClient

log = structlog.get_logger()

PUBLISH_SECONDS: Final = 15.0
MAX_REQUESTS: Final = 128
"""Requests of the broker that this process handles at once, at most `MAX_BODY` each."""

_URL: Final = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[^\s:/@?#\[\]]+)(:[0-9]{1,5})?(/[^\s?#@]*)?")
_RETRYABLE: Final = frozenset({404, 408, 409, 425, 429})
"""Refusals that are retried by Knative's contract, besides all of 5xx."""
_WRONG_SETTING: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class BrokerAuthentication:
    """How this process and its broker authenticate each other.

    Attributes:
        token: returns the current bearer token for requests to the broker.
        verify_sender: accepts the broker's `Authorization` header, and raises for any other.
    """

    token: Callable[[], str]
    verify_sender: Callable[[str], Awaitable[None]]


def ingress_url(url: str) -> str:
    """Return the URL of the ingress, checked.

    Raises:
        ValueError: it is of another form; the message does not repeat it, because it may hold a secret.
    """
    if not _URL.fullmatch(url):
        raise ValueError("the bus URL is not of the form http://host:port[/path], without user or options")
    return url


class HttpBus:
    """A bus that publishes to a broker's ingress and receives at a route of this process.

    Args:
        url: of the ingress.
        broker_authentication: how the broker and this process authenticate each other.
        receive_seconds: how long `receive` waits for handlers, with their retries, before it raises `Transient`.
    """

    def __init__(self, url: str, broker_authentication: BrokerAuthentication, *, receive_seconds: float = 5.0) -> None:
        self._url = ingress_url(url)
        self._authentication = broker_authentication
        self._receive_seconds = receive_seconds
        self._broker = HttpClient(url)
        self._key_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._dispatcher = Dispatcher()
        self._group = ""
        self._members = 0
        self._requests = 0
        self._closed = False

    async def publish(self, message: Message) -> None:
        check_size(message)
        headers, body = encode_post(message)
        if self._closed:
            raise Transient(f"a message for {message.topic} was not published: the bus is closed")
        headers = {**headers, "Authorization": f"Bearer {self._authentication.token()}"}
        try:
            async with asyncio.timeout(PUBLISH_SECONDS), self._key_lock(message.key):
                answer = await self._broker.send_once(
                    "POST", self._url, content=body, headers=headers, deadline=PUBLISH_SECONDS
                )
        except TimeoutError:
            late = f"earlier messages of its key took {PUBLISH_SECONDS:g} s"
            raise Transient(f"a message for {message.topic} was not published: {late}") from None
        if not answer.is_success:
            raise _refusal(message, answer.status_code, answer.text[:200], answer.headers.get("Retry-After", ""))

    @asynccontextmanager
    async def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> AsyncGenerator[None]:
        if self._group not in {"", group}:
            msg = f"this process is the subscriber {self._group}, and cannot be {group} too ({', '.join(topics)})"
            raise ValueError(msg)
        self._group = group
        member = self._dispatcher.join(handler)
        self._members += 1
        try:
            yield
        finally:
            self._members -= 1
            self._dispatcher.leave(member)
            await finish(member)

    async def receive(
        self, headers: Iterable[tuple[bytes, bytes]], authorization: str, body: Callable[[], Awaitable[bytes]]
    ) -> None:
        """Handle the events of one request of the broker; after the return, the broker may drop them.

        Args:
            headers: as ASGI gives them.
            authorization: the header of that name.
            body: reads the body; called only for the broker, and below `MAX_REQUESTS`.

        Raises:
            Transient: the broker has to post the request again.
            Problem: the sender is not our broker.
        """
        await self._authentication.verify_sender(authorization)
        if not self._members:
            raise Transient("an event is left with the broker: this process has no subscription now")
        if self._requests >= MAX_REQUESTS:
            raise Transient(f"an event is left with the broker: this process handles {MAX_REQUESTS} others now")
        self._requests += 1
        try:
            await self._handle(decode_post(headers, await body()))
        finally:
            self._requests -= 1

    async def close(self) -> None:
        self._closed = True
        await self._broker.close()

    async def _handle(self, messages: Sequence[Message]) -> None:
        deliveries = [self._dispatcher.enqueue(message) for message in messages]
        try:
            async with asyncio.timeout(self._receive_seconds):
                await asyncio.gather(*(delivery.handled for delivery in deliveries))
        except TimeoutError:
            raise Transient(f"an event is left with the broker: not handled within {self._receive_seconds} s") from None
        finally:
            for delivery in deliveries:
                self._dispatcher.remove(delivery)

    def _key_lock(self, key: str) -> AbstractAsyncContextManager[None]:
        """Return the lock by which the events of a key are published in order.

        The bus promises no order; while nothing fails, this lock keeps it at no cost.
        """
        return self._key_locks.setdefault(key, asyncio.Lock()) if key else nullcontext()


def _refusal(message: Message, status: int, reason: str, retry_after: str) -> OutsideError:
    """Return the error for a message that the broker has not accepted.

    An authentication failure or a redirect means a wrong setting, which is no fault of the event: the event stays in
    its outbox until an operator has corrected the setting.
    """
    refusal = f"the broker did not accept a message for {message.topic}: it answered {status}"
    if status in _WRONG_SETTING or status < 400:
        log.error("publish_unauthorized", status=status, consequence="events stay in their outbox")
        return Transient(refusal)
    if status in _RETRYABLE or status >= 500:
        return Transient(refusal, float(retry_after[:9]) if retry_after.isascii() and retry_after.isdigit() else None)
    return Permanent(f"{refusal} {reason!r}")

"""Subscribers over HTTP: one attempt to deliver an event; a failed connection becomes a response too."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Self

import aiohttp

from mock_eventing.domain.binary import write_binary
from mock_eventing.domain.events import Event
from mock_eventing.domain.retrying import MAX_ERROR_BYTES, SubscriberResponse
from mock_eventing.domain.structured import STRUCTURED, write_structured
from mock_eventing.domain.triggers import DeliverySpec
from shared_clients.egress import CheckedConnector, EgressPolicy, open_session
from shared_clients.outbound import retry_after
from shared_clients.tracing import inject

_PLAIN: Final = {"User-Agent": "flotilla-mock-eventing", "Accept-Encoding": "identity"}
_IDLE_SECONDS: Final = 20
"""Shorter than our servers keep an idle connection, so that no server closes it just as a request is sent."""


class HttpSubscribers:
    """An HTTP client for subscribers, as an async context manager; `TriggerDeliveries` bounds its connections.

    Args:
        uris: of the subscribers and dead-letter sinks; nothing else is reached.
        secret: the bearer token of each request; an empty text means that requests carry none.
    """

    def __init__(self, uris: Iterable[str], secret: str) -> None:
        self._policy = EgressPolicy.of(uris)
        self._headers = {**_PLAIN, **({"Authorization": f"Bearer {secret}"} if secret else {})}

    async def __aenter__(self) -> Self:
        connector = CheckedConnector(self._policy, limit=0, keepalive_seconds=_IDLE_SECONDS)
        self._session = open_session(connector, timeout=aiohttp.ClientTimeout(), skip_auto_headers=("Content-Type",))
        return self

    async def __aexit__(self, *_exit: object) -> None:
        await self._session.close()

    async def send(self, uri: str, event: Event, delivery: DeliverySpec) -> SubscriberResponse:
        if delivery.format == "json":
            headers, body = {"Content-Type": STRUCTURED}, write_structured(event)
        else:
            headers, body = write_binary(event)
        try:
            async with self._session.post(
                uri,
                data=body,
                headers={**headers, **self._headers, **inject()},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=delivery.timeout.total_seconds()),
            ) as response:
                return await _read(response)
        except TimeoutError:
            return SubscriberResponse(None, f"no answer within {delivery.timeout.total_seconds():g} s".encode())
        except (aiohttp.ClientError, OSError) as error:
            return SubscriberResponse(None, f"the connection failed ({type(error).__name__})".encode())


async def _read(response: aiohttp.ClientResponse) -> SubscriberResponse:
    """Return the status with the beginning of an error's body; a body that breaks off changes nothing."""
    body = b""
    if not 200 <= response.status < 300:
        with suppress(aiohttp.ClientError, OSError):  # TimeoutError is an OSError
            body = await response.content.read(MAX_ERROR_BYTES)
    return SubscriberResponse(response.status, body, retry_after(response.headers.get("Retry-After", "")))

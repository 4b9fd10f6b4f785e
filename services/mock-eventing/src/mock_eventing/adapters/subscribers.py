"""Those who get events, over HTTP: one try, and whatever comes of it is an answer."""

from contextlib import suppress
from typing import Final, Self

import aiohttp

from mock_eventing.domain.binary import write_binary
from mock_eventing.domain.events import Event
from mock_eventing.domain.retrying import MAX_ERROR_BYTES, Answer
from mock_eventing.domain.structured import STRUCTURED, write_structured
from mock_eventing.domain.triggers import Delivery
from shared_clients.outbound import retry_after
from shared_clients.tracing import inject

_PLAIN: Final = {"User-Agent": "flotilla-mock-eventing", "Accept-Encoding": "identity"}
_IDLE_SECONDS: Final = 20
"""Shorter than our servers keep an idle connection, so that they do not let go of it as we send."""


class HttpSubscribers:
    """An async context manager that closes its connections; how many there are is for the lanes to say.

    Args:
        secret: the bearer token that is shown to each; none where it is empty.
    """

    def __init__(self, secret: str) -> None:
        self._headers = {**_PLAIN, **({"Authorization": f"Bearer {secret}"} if secret else {})}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Content-Type",),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_exit: object) -> None:
        await self._session.close()

    async def send(self, uri: str, event: Event, delivery: Delivery) -> Answer:
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
                return await _answer(response)
        except TimeoutError:
            return Answer(None, f"no answer within {delivery.timeout.total_seconds():g} s".encode())
        except (aiohttp.ClientError, OSError) as error:
            return Answer(None, f"the connection failed ({type(error).__name__})".encode())


async def _answer(response: aiohttp.ClientResponse) -> Answer:
    """Read no more than is of use: the status counts, whatever becomes of the body."""
    body = b""
    if not 200 <= response.status < 300:
        with suppress(aiohttp.ClientError, OSError):  # TimeoutError among them
            body = await response.content.read(MAX_ERROR_BYTES)
    return Answer(response.status, body, retry_after(response.headers.get("Retry-After", "")))

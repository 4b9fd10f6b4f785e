"""One HTTP exchange over the checked connector, as the transports of httpx and httpx2 need it.

An exchange follows no redirect, and takes no compressed answer, because a small one could unpack to gigabytes. It ends
an answer that is too large or takes too long.
"""

import ssl
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from shared_clients.egress.connecting import (
    MAX_ANSWER,
    AnswerTooLargeError,
    CheckedConnector,
    DestinationRefusedError,
    open_session,
)
from shared_clients.egress.destinations import EgressPolicy

MAX_SECONDS: Final = 3600.0
"""The longest time of one exchange, whatever its client allows."""
CONNECTIONS: Final = 1000
"""At once, unless a client asks for fewer; a streamed answer holds one until its end."""

_SET_HERE: Final = frozenset({b"accept-encoding", b"connection", b"transfer-encoding"})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_NOT_ADDED: Final = ("Accept", "User-Agent", "Content-Type")

type Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class ErrorTypes:
    """The error classes of one HTTP library, for the ways in which an exchange fails."""

    connect: type[Exception]
    connect_timeout: type[Exception]
    read: type[Exception]
    read_timeout: type[Exception]
    protocol: type[Exception]


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """One request, as an HTTP library hands it to its transport.

    Attributes:
        timeouts: seconds for `connect` and for `read`, each of which may be None or missing.
    """

    method: str
    url: str
    headers: Headers
    body: bytes
    timeouts: Mapping[str, float | None]


class Exchanges:
    """The connections of one transport; they open at the first exchange.

    Args:
        policy: the destinations that may be reached.
        errors: raised in place of aiohttp's.
        tls: for https; the machine's certificate authorities by default.
        resolver: replaces the machine's resolver.
        max_answer: bytes of one answer.
        limit: connections at once.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        errors: ErrorTypes,
        *,
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
        max_answer: int = MAX_ANSWER,
        limit: int = CONNECTIONS,
    ) -> None:
        self._policy = policy
        self._errors = errors
        self._tls = tls
        self._resolver = resolver
        self._max_answer = max_answer
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None

    async def open(self, request: ExchangeRequest) -> "OpenAnswer":
        """Send a request, and return the answer when its status and headers are there."""
        if self._session is None:
            connector = CheckedConnector(self._policy, limit=self._limit, tls=self._tls, resolver=self._resolver)
            self._session = open_session(connector, timeout=aiohttp.ClientTimeout(), skip_auto_headers=_NOT_ADDED)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in _kept(request.headers)]
        timeouts = request.timeouts
        with _translated(self._errors):
            response = await self._session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body or None,
                headers=[*headers, ("Accept-Encoding", "identity")],
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=MAX_SECONDS, connect=timeouts.get("connect"), sock_read=timeouts.get("read")
                ),
            )
            if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                response.close()
                raise aiohttp.ClientPayloadError("the answer is compressed, which the request did not accept")
        return OpenAnswer(response, self._errors, self._max_answer)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class OpenAnswer:
    """An answer whose body is still to be read."""

    def __init__(self, response: aiohttp.ClientResponse, errors: ErrorTypes, max_answer: int) -> None:
        self._response = response
        self._errors = errors
        self._max_answer = max_answer
        self.status = response.status
        self.headers = _without_location(response)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body, one chunk for each read of the socket."""
        size = 0
        with _translated(self._errors):
            async for chunk in self._response.content.iter_any():
                size += len(chunk)
                if size > self._max_answer:
                    self._response.close()
                    raise AnswerTooLargeError(f"the answer has more than {self._max_answer} bytes")
                yield chunk

    def close(self) -> None:
        self._response.close()


def _kept(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in _SET_HERE]


def _without_location(response: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    """Return the headers; a redirect loses its `Location`, so that the library above cannot follow it."""
    if response.status not in _REDIRECTS:
        return list(response.raw_headers)
    return [(name, value) for name, value in response.raw_headers if name.lower() != b"location"]


@contextmanager
def _translated(errors: ErrorTypes) -> Iterator[None]:
    """Raise the errors of an HTTP library in place of aiohttp's."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise errors.connect_timeout(str(error)) from error
    except (DestinationRefusedError, aiohttp.ClientConnectorError) as error:
        raise errors.connect(str(error)) from error
    except TimeoutError as error:
        raise errors.read_timeout(str(error) or "no bytes came in time") from error
    except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError, aiohttp.ServerDisconnectedError) as error:
        raise errors.protocol(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise errors.read(str(error)) from error
    except ValueError as error:  # a URL or header that aiohttp does not accept
        raise errors.connect(str(error)) from error

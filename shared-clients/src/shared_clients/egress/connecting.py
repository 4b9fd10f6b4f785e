"""The connector under every HTTP client: it resolves a host once, checks all addresses, and connects to one of them.

The check stands below redirects, retries and URL parsers, at the place that opens sockets. A pooled connection stays
with the address that was checked when it was opened.
"""

import socket
import ssl
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from shared_clients.egress.destinations import (
    Allowed,
    Destination,
    EgressPolicy,
    Refused,
    decide_addresses,
    decide_host,
)

if TYPE_CHECKING:
    from aiohttp.client import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

MAX_ANSWER: Final = 64 << 20
"""Bytes of one answer, unless a client asks for less."""


class DestinationRefusedError(aiohttp.ClientConnectionError):
    """The egress policy refuses the destination, so no packet was sent to it."""


class AnswerTooLargeError(aiohttp.ClientPayloadError):
    """The answer has more bytes than its client accepts; the rest is not read."""


class CheckedResolver(AbstractResolver):
    """Resolves a host once, and returns its addresses only if the policy allows all of them.

    Args:
        policy: of the client.
        resolver: asks for the addresses; the machine's own resolver by default.
    """

    def __init__(self, policy: EgressPolicy, resolver: AbstractResolver | None = None) -> None:
        self._policy = policy
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        destination = Destination(host.lower().removesuffix("."), port)
        _raise_if_refused(decide_host(destination, self._policy))
        resolved = await self._resolver.resolve(host, port, family)
        _raise_if_refused(decide_addresses(destination, [one["host"] for one in resolved], self._policy))
        return resolved

    async def close(self) -> None:
        await self._resolver.close()


class CheckedConnector(aiohttp.TCPConnector):
    """A pool of connections to the destinations of one policy.

    Args:
        policy: of the client.
        limit: connections at once; 0 where the caller itself bounds its requests.
        keepalive_seconds: how long an idle connection stays open.
        tls: for https; the machine's certificate authorities by default.
        resolver: replaces the machine's resolver.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        limit: int,
        keepalive_seconds: float = 20.0,
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        super().__init__(
            resolver=CheckedResolver(policy, resolver),
            limit=limit,
            keepalive_timeout=keepalive_seconds,
            ssl=tls if tls is not None else True,
        )
        self._policy = policy

    async def connect(
        self,
        req: "ClientRequest",
        traces: "list[Trace]",
        timeout: "ClientTimeout",  # noqa: ASYNC109 - aiohttp's name
    ) -> "Connection":
        """Open or reuse a connection; aiohttp asks no resolver for a host that is an address, so it is checked here.

        Raises:
            DestinationRefusedError: the policy refuses the request's destination.
        """
        if req.proxy is not None:
            raise DestinationRefusedError("no setting names a proxy, so none is used")
        destination = Destination((req.url.host or "").lower().removesuffix("."), req.url.port or 0)
        _raise_if_refused(decide_host(destination, self._policy))
        return await super().connect(req, traces, timeout)


def open_session(
    connector: CheckedConnector, *, timeout: aiohttp.ClientTimeout, skip_auto_headers: tuple[str, ...] = ()
) -> aiohttp.ClientSession:
    """Return a session that has no cookies, decodes nothing, and ignores proxies and passwords of the environment."""
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=skip_auto_headers,
    )


async def read_answer(response: aiohttp.ClientResponse, *, at_most: int = MAX_ANSWER) -> bytes:
    """Return the body of an answer.

    Raises:
        AnswerTooLargeError: the body has more than `at_most` bytes.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > at_most:
            response.close()
            raise AnswerTooLargeError(f"the answer has more than {at_most} bytes")
    return bytes(body)


def _raise_if_refused(decision: Allowed | Refused) -> None:
    if isinstance(decision, Refused):
        raise DestinationRefusedError(decision.reason)

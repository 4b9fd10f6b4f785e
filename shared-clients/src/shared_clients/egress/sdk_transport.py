"""The transport of httpx2, for the SDKs of providers: each request goes through the checked connector."""

import ssl
from collections.abc import AsyncGenerator
from typing import Final, cast

import httpx2
from aiohttp.abc import AbstractResolver

from shared_clients.egress.connecting import MAX_ANSWER
from shared_clients.egress.destinations import EgressPolicy
from shared_clients.egress.exchanging import CONNECTIONS, ErrorTypes, ExchangeRequest, Exchanges, OpenAnswer

_ERRORS: Final = ErrorTypes(
    connect=httpx2.ConnectError,
    connect_timeout=httpx2.ConnectTimeout,
    read=httpx2.ReadError,
    read_timeout=httpx2.ReadTimeout,
    protocol=httpx2.RemoteProtocolError,
)


class SdkTransport(httpx2.AsyncBaseTransport):
    """Sends the requests of one client; the arguments are those of `Exchanges`."""

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
        max_answer: int = MAX_ANSWER,
        limit: int = CONNECTIONS,
    ) -> None:
        self._exchanges = Exchanges(policy, _ERRORS, tls=tls, resolver=resolver, max_answer=max_answer, limit=limit)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        exchange = ExchangeRequest(
            request.method,
            str(request.url),
            request.headers.raw,
            await request.aread(),
            cast("dict[str, float | None]", request.extensions.get("timeout", {})),
        )
        answer = await self._exchanges.open(exchange)
        return httpx2.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    async def aclose(self) -> None:
        await self._exchanges.close()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, answer: OpenAnswer) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        async for chunk in self._answer.chunks():
            yield chunk

    async def aclose(self) -> None:
        self._answer.close()

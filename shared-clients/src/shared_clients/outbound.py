"""An HTTP client with a deadline, careful retries, trace headers, and errors of the four kinds in `errors`.

Services use it outside the hot path, and so does `fleet`; the command line has a smaller client
(`command_line.remote`). A client reaches its own server and no other, by the rule of `egress`. A call that had no
effect is retried. Any other is retried only if repeating it is harmless: by a safe or idempotent method, or with an
Idempotency-Key.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, Self

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from shared_clients import tracing
from shared_clients.egress import CheckedTransport, DestinationRefusedError, EgressPolicy
from shared_clients.errors import OutsideError, Permanent, Transient, Unknown
from shared_models.problems import Problems

ATTEMPTS: Final = 4
CONNECTIONS: Final = 128
MAX_ANSWER: Final = 64 << 20
"""Bytes of one answer; an operator's page of dead letters with their content is the largest."""
SILENCE_SECONDS: Final = 45.0
"""How long a stream may send nothing, not even a heartbeat, before it counts as dead."""

_BACKOFF: Final = wait_random_exponential(multiplier=0.2, max=5)
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_HAD_NO_EFFECT: Final = frozenset({408, 425, 429, 503})
"""Statuses of requests that had no effect, and may succeed later."""


class HttpClient:
    """A client of one server; an async context manager that closes its connections.

    Args:
        base_url: of the server; no other host or port is reached.
        headers: sent with each call.
        transport: replaces the network.
        ca_file: the certificate authorities for TLS; by default the file that SSL_CERT_FILE names, or the machine's.

    Raises:
        Permanent: the base URL is not an http or https URL.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers=headers,
            transport=transport or _transport(base_url, ca_file),
            timeout=httpx.Timeout(None, read=SILENCE_SECONDS),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exit: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float = 10.0,
    ) -> httpx.Response:
        """Make one call, with retries, and return the 2xx response.

        Args:
            method: the HTTP method.
            path: below the base URL.
            content: the body; JSON unless `headers` has another Content-Type.
            headers: of this call.
            deadline: seconds for all tries together.

        Raises:
            Transient: the call had no effect, and may succeed later.
            Permanent: the server refused it; the message is the problem's title and detail.
            Unknown: the call may have had its effect; a call that can be repeated safely was repeated before.
        """
        request = self._request(method, path, content, headers)
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: _may_try_again(error, request)),
            stop=stop_after_attempt(ATTEMPTS) | stop_before_delay(deadline),
            wait=_pause,
            reraise=True,
        )
        try:
            async with asyncio.timeout(deadline):
                return await retrying(self._send, request, stream=False)
        except TimeoutError:
            raise _undecided(request, f"no answer within {deadline:g} s") from None

    async def send_once(
        self, method: str, url: str, *, content: bytes, headers: Mapping[str, str], deadline: float
    ) -> httpx.Response:
        """Send one request without retries, and return the response of any status.

        Raises:
            Transient: there is no connection, so the request had no effect.
            Unknown: there is no response; the request may have had its effect.
        """
        request = self._client.build_request(method, url, content=content, headers={**tracing.inject(), **headers})
        try:
            async with asyncio.timeout(deadline):
                return await self._client.send(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Transient(f"{_name(request)}: there is no connection ({type(error).__name__})") from error
        except (httpx.TransportError, TimeoutError) as error:
            raise Unknown(f"{_name(request)}: there is no response ({type(error).__name__})") from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float = 10.0,
    ) -> AsyncGenerator[httpx.Response]:
        """Open a stream and yield the 2xx response, whose body is read inside the context.

        The arguments and errors are those of `call`. There are no retries, because only the caller knows from where to
        continue. A stream that is cut, or silent for `SILENCE_SECONDS`, raises Transient. `deadline` is for the status
        and the headers.
        """
        request = self._request(method, path, content, headers)
        try:
            async with asyncio.timeout(deadline):
                response = await self._send(request, stream=True)
        except TimeoutError:
            raise _undecided(request, f"no answer within {deadline:g} s") from None
        try:
            yield response
        except httpx.TransportError as error:
            raise Transient(f"{_name(request)}: the stream was cut ({type(error).__name__})") from error
        finally:
            await response.aclose()

    def _request(
        self, method: str, path: str, content: bytes | None, headers: Mapping[str, str] | None
    ) -> httpx.Request:
        media = {} if content is None else {"Content-Type": "application/json"}
        return self._client.build_request(
            method, path, content=content, headers={**media, **tracing.inject(), **(headers or {})}
        )

    async def _send(self, request: httpx.Request, *, stream: bool) -> httpx.Response:
        try:
            response = await self._client.send(request, stream=True)
            if not (stream and response.is_success):
                await response.aread()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if isinstance(error.__cause__, DestinationRefusedError):
                raise Permanent(f"{_name(request)}: {error}") from error
            raise Transient(f"{_name(request)}: cannot connect; is the server running there?") from error
        except httpx.TransportError as error:
            raise _undecided(request, f"the connection broke ({type(error).__name__})") from error
        if not response.is_success:
            raise _refusal(request, response)
        return response


def _transport(base_url: str, ca_file: Path | None) -> httpx.AsyncBaseTransport:
    try:
        policy = EgressPolicy.of([base_url])
    except ValueError as error:
        raise Permanent(f"the address of the server cannot be used: {error}") from error
    tls = ssl.create_default_context(cafile=ca_file)
    return CheckedTransport(policy, tls=tls, max_answer=MAX_ANSWER, limit=CONNECTIONS)


class _ProblemBody(BaseModel):
    title: str
    detail: str


def _name(request: httpx.Request) -> str:
    return f"{request.method} {request.url.copy_with(query=None)}"


def _undecided(request: httpx.Request, reason: str) -> Unknown:
    """Return the error of a call that may have had its effect."""
    return Unknown(f"{_name(request)}: {reason}")


def _repeatable(request: httpx.Request) -> bool:
    return request.method in _REPEATABLE or "Idempotency-Key" in request.headers


def _may_try_again(error: BaseException, request: httpx.Request) -> bool:
    return isinstance(error, Transient) or (isinstance(error, Unknown) and _repeatable(request))


def _refusal(request: httpx.Request, response: httpx.Response) -> OutsideError:
    reason = f"{response.status_code} {_explanation(response)}"
    if Problems.OUTCOME_UNKNOWN.value.uri.encode() in response.content:
        return _undecided(request, reason)
    if response.status_code in _HAD_NO_EFFECT:
        return Transient(f"{_name(request)}: {reason}", retry_after(response.headers.get("Retry-After", "")))
    if response.is_server_error:
        return _undecided(request, reason)
    return Permanent(f"{_name(request)}: {reason}")


def _explanation(response: httpx.Response) -> str:
    try:
        body = _ProblemBody.model_validate_json(response.content)
    except ValidationError:
        return response.reason_phrase
    return f"{body.title}: {body.detail}"[:500]


def retry_after(value: str) -> float | None:
    """Return the seconds in a Retry-After header (RFC 9110), which holds seconds or a date."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    requested = error.retry_after if isinstance(error, Transient) else None
    return _BACKOFF(state) if requested is None else requested

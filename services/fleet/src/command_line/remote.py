"""Calls to a running fleet over HTTP, with the standard library alone: importing httpx takes longer than a command.

A call is tried again only when it is known not to have happened, or when happening twice is the same as once. Errors
are those of `shared_clients.errors`.
"""

import json
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from command_line.local import load_dev_key, open_state_folder
from command_line.settings import read_settings
from shared_clients.errors import OutsideError, Permanent, Transient, Unknown

ATTEMPTS: Final = 4
CONNECT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 45.0
"""How long a stream may send nothing, not even a heartbeat, before it counts as broken."""
_CHUNK_BYTES: Final = 65_536
_REPEATABLE_METHODS: Final = frozenset({"GET", "DELETE"})
_NOT_DONE: Final = frozenset({408, 425, 429, 503})
"""Statuses which say that nothing has happened, and that it may succeed later."""
OUTCOME_UNKNOWN: Final = b"/outcome-unknown"
"""The end of the problem type which says that it may have happened, whatever the status."""


@dataclass(frozen=True, slots=True)
class RemoteFleet:
    """A fleet that listens somewhere.

    Attributes:
        url: its base URL, without a slash at the end.
        key: the API key.
    """

    url: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RemoteCall:
    """One HTTP request to a fleet.

    Attributes:
        method, path: of the request; the path begins with a slash.
        body: JSON.
        headers: further ones.
    """

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def repeatable(self) -> bool:
        return self.method in _REPEATABLE_METHODS or "Idempotency-Key" in self.headers


@dataclass(frozen=True, slots=True)
class OpenedStream:
    """The answer to a call whose body comes piece by piece.

    Attributes:
        execution_id: the run that is followed (`Flotilla-Execution-Id`); None where the server names none.
        chunks: the body.
    """

    execution_id: str | None
    chunks: Iterator[bytes]


def remote_fleet(url: str | None) -> RemoteFleet:
    """Return the fleet at `url`, or the one on this machine, with the development key.

    Raises:
        WrongSettings: the environment names no port.
        Permanent: `url` is no base URL, or there is no key and none can be made.
    """
    settings = read_settings()
    base = (url or settings.url).rstrip("/")
    try:
        parts = urlsplit(base)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise Permanent(f"--server: expected a base URL such as http://localhost:8080, and got {base[:100]!r}")
    return RemoteFleet(base, load_dev_key(open_state_folder(settings.state_folder), settings.auth_dev_key))


def call(fleet: RemoteFleet, request: RemoteCall, *, deadline: float = 10.0) -> bytes:
    """Make a call, with its retries, and return the body of the 2xx answer.

    Args:
        fleet: the server.
        request: the call.
        deadline: the seconds within which a retry may begin; also the limit for one answer.

    Raises:
        Transient: it did not happen and may succeed later.
        Permanent: it was refused; the message is the problem's title and detail.
        Unknown: it may have happened.
    """
    until = time.monotonic() + deadline
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _answer(fleet, request, deadline) as response:
                return _read(fleet, request, response)
        except Transient as error:
            pause = 0.2 * 2**attempt if error.retry_after is None else error.retry_after
            if attempt == ATTEMPTS or time.monotonic() + pause > until:
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def open_stream(fleet: RemoteFleet, request: RemoteCall) -> Iterator[OpenedStream]:
    """Make a call and yield its 2xx answer, whose body is read inside the context; see `call`.

    Nothing is retried: only the caller knows where to resume. A stream that breaks, or is silent for
    `SILENCE_SECONDS`, is Transient.
    """
    with _answer(fleet, request, SILENCE_SECONDS) as response:
        yield OpenedStream(response.headers.get("Flotilla-Execution-Id"), _chunks(fleet, request, response))


def _chunks(fleet: RemoteFleet, request: RemoteCall, response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(_CHUNK_BYTES):
            yield chunk
    except (OSError, HTTPException) as error:
        raise Transient(f"{_name(fleet, request)}: the stream broke ({type(error).__name__})") from error


@contextmanager
def _answer(fleet: RemoteFleet, request: RemoteCall, seconds: float) -> Iterator[HTTPResponse]:
    """Send a request on a connection of its own, and yield the 2xx answer; each read may take `seconds`."""
    with (
        closing(_connection(fleet)) as connection,
        closing(_send(connection, fleet, request, seconds)) as response,
    ):
        if not 200 <= response.status < 300:
            raise _refusal(fleet, request, response)
        yield response


def _connection(fleet: RemoteFleet) -> HTTPConnection:
    parts = urlsplit(fleet.url)
    assert parts.hostname
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return HTTPSConnection(parts.hostname, parts.port, timeout=CONNECT_SECONDS, context=context)
    return HTTPConnection(parts.hostname, parts.port, timeout=CONNECT_SECONDS)


def _send(connection: HTTPConnection, fleet: RemoteFleet, request: RemoteCall, seconds: float) -> HTTPResponse:
    try:
        connection.connect()
    except OSError as error:
        msg = f"{_name(fleet, request)}: cannot connect ({error.strerror or error}); is the fleet running there?"
        raise Transient(msg) from error
    connection.sock.settimeout(seconds)
    media = {} if request.body is None else {"Content-Type": "application/json"}
    headers = {"Authorization": f"Bearer {fleet.key}", **media, **request.headers}
    try:
        connection.request(request.method, urlsplit(fleet.url).path + request.path, request.body, headers)
        return connection.getresponse()
    except TimeoutError as error:
        raise _undecided(fleet, request, f"no answer within {seconds:g} s") from error
    except (OSError, HTTPException) as error:
        raise _undecided(fleet, request, f"the connection broke ({type(error).__name__})") from error


def _read(fleet: RemoteFleet, request: RemoteCall, response: HTTPResponse) -> bytes:
    try:
        return response.read()
    except (OSError, HTTPException) as error:
        raise _undecided(fleet, request, f"the answer broke off ({type(error).__name__})") from error


def _refusal(fleet: RemoteFleet, request: RemoteCall, response: HTTPResponse) -> OutsideError:
    body = _read(fleet, request, response)
    reason = f"{response.status} {_explanation(body) or response.reason}"
    if OUTCOME_UNKNOWN in body:
        return _undecided(fleet, request, reason)
    if response.status in _NOT_DONE:
        seconds = response.headers.get("Retry-After", "")
        wait = float(seconds[:9]) if seconds.isascii() and seconds.isdigit() else None
        return Transient(f"{_name(fleet, request)}: {reason}", wait)
    if response.status >= 500:
        return _undecided(fleet, request, reason)
    if response.status == 401:
        reason += " (set FLOTILLA_AUTH_DEV_KEY to the API key that this fleet printed when it started)"
    return Permanent(f"{_name(fleet, request)}: {reason}")


def _explanation(body: bytes) -> str:
    """Return title and detail of a problem (RFC 9457); nothing where the body is none."""
    try:
        problem = json.loads(body)
    except ValueError:
        return ""
    match problem:
        case {"title": str(title), "detail": str(detail)}:
            return f"{title}: {detail}"[:500]
        case _:
            return ""


def _undecided(fleet: RemoteFleet, request: RemoteCall, reason: str) -> OutsideError:
    """Return the error of a call that may have happened."""
    message = f"{_name(fleet, request)}: {reason}"
    return Transient(message) if request.repeatable else Unknown(message)


def _name(fleet: RemoteFleet, request: RemoteCall) -> str:
    return f"{request.method} {fleet.url}{request.path.partition('?')[0]}"

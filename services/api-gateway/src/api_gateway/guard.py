"""What a request has to pass before anything else at the only door: its Host, its Origin, and no borrowed identity.

Three pieces of plain ASGI around the gateway's app. The Host must be ours (DNS rebinding), a cookie counts for a change
only when our own page sent it (cross-site requests), and headers by which services prove identity to each other never
come from outside. `app.py` puts them on, the allow-list outermost.
"""

from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service_process.web import problem_response
from shared_models.problems import Problem, Problems

type Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OURS: Final = b"flotilla-"
"""Headers that begin so are between services; a client has no business with them."""
_POLICY_VIOLATION: Final = 1008


class HostAllowList:
    """Serves a request only under a Host that is ours, port included, compared without regard to case."""

    def __init__(self, app: ASGIApp, allowed: frozenset[str]) -> None:
        self._app = app
        self._allowed = frozenset(host.lower().encode() for host in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_ours(scope["headers"]):
            await self._app(scope, receive, send)
            return
        detail = "expected exactly one Host header with a name and port that this server is configured to serve"
        await _refuse(scope, receive, send, Problem(Problems.MISDIRECTED, detail))

    def _is_ours(self, headers: Headers) -> bool:
        hosts = _values(headers, b"host")
        return len(hosts) == 1 and hosts[0].lower() in self._allowed


class CookieGuard:
    """Refuses what a foreign page may have sent with our cookie; see `origin_is_right`."""

    def __init__(self, app: ASGIApp, *, cookie: str, origins: frozenset[str]) -> None:
        self._app = app
        self._cookie = cookie.encode()
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or origin_is_right(scope, self._cookie, self._origins):
            await self._app(scope, receive, send)
            return
        detail = "with the session cookie, a change needs the header Origin of our own page, port included"
        await _refuse(scope, receive, send, Problem(Problems.BAD_ORIGIN, detail))


class NoBorrowedIdentity:
    """Removes the headers by which services prove identity to each other."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            scope["headers"] = without_identity(scope["headers"])
        await self._app(scope, receive, send)


def origin_is_right(scope: Scope, cookie: bytes, origins: frozenset[bytes]) -> bool:
    """Tell whether a request may use the cookie that it carries.

    It may when it carries none, when it is a safe method over HTTP, or when it has one Origin and that is ours to the
    letter. A WebSocket handshake is never safe. A missing Origin is refused.
    """
    if scope["type"] == "http" and scope["method"] in _SAFE:
        return True
    if not _has_cookie(scope["headers"], cookie):
        return True
    given = _values(scope["headers"], b"origin")
    return len(given) == 1 and given[0] in origins


def without_identity(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers without those that only services send each other."""
    return [(name, value) for name, value in headers if not name.startswith(_OURS)]


def _has_cookie(headers: Headers, cookie: bytes) -> bool:
    pairs = (pair for value in _values(headers, b"cookie") for pair in value.split(b";"))
    return any(pair.partition(b"=")[0].strip() == cookie for pair in pairs)


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


async def _refuse(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": problem.kind.title})
        return
    await problem_response(scope, problem)(scope, receive, send)

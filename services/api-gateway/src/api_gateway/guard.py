"""The checks that every request passes first: its Host, its path, its Origin, and no headers of services.

Pieces of plain ASGI around the gateway's app. The Host must be one of the configured hosts, against DNS rebinding. A
path with dot segments is refused, because an HTTP client or a service would resolve it to another path. A cookie
authorizes a change only from the gateway's own page, against cross-site requests. Headers by which services prove
identity to each other are removed. `app.py` adds these checks, the allow-list outermost.
"""

from typing import Final
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from service_process.web import HEALTH, problem_response
from shared_clients.headers import RawHeaders, cookies, lines_of
from shared_models.problems import Problem, Problems

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
INTERNAL_PREFIX: Final = b"flotilla-"
"""The beginning of the names of headers that only services send each other."""
MAX_DECODINGS: Final = 4
"""Times that a path is decoded; a path that was encoded more often has no honest sender."""
POLICY_VIOLATION: Final = 1008
"""The WebSocket close code of RFC 6455."""


class HostAllowList:
    """Refuses a request whose Host is not configured, port included, compared without regard to case.

    Probes of health answer under any Host, because a kubelet and a load balancer address a pod by its IP address.
    """

    def __init__(self, app: ASGIApp, allowed: frozenset[str]) -> None:
        self._app = app
        self._allowed = frozenset(host.lower() for host in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _is_probe(scope) or self._allows(scope["headers"]):
            await self._app(scope, receive, send)
            return
        detail = (
            "The Host header of this request does not name this server. Expected exactly one Host header, with a name "
            "and port from the setting FLOTILLA_ALLOWED_HOSTS. Use such an address, or add this one to the setting."
        )
        await _refuse(scope, receive, send, Problem(Problems.MISDIRECTED, detail))

    def _allows(self, headers: RawHeaders) -> bool:
        hosts = lines_of(headers, b"host")
        return len(hosts) == 1 and hosts[0].lower() in self._allowed


class DotSegmentCheck:
    """Answers 404 to a path with a segment `.` or `..`, encoded or not; see `has_dot_segment`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not has_dot_segment(scope["path"]):
            await self._app(scope, receive, send)
            return
        detail = (
            "The path of this request has a segment '.' or '..', and no resource has such a path. "
            "Expected a path without these segments, encoded or not. Send the path that they lead to."
        )
        await _refuse(scope, receive, send, Problem(Problems.NOT_FOUND, detail))


class OriginCheck:
    """Refuses a change by session cookie if another site's page may have sent the request; see `may_use_cookie`."""

    def __init__(self, app: ASGIApp, *, cookie: str, origins: frozenset[str], sign_in: str) -> None:
        self._app = app
        self._cookie = cookie
        self._origins = origins
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or may_use_cookie(scope, self._cookie, self._origins, self._sign_in):
            await self._app(scope, receive, send)
            return
        detail = (
            "This request would change something with the session cookie, but its Origin header is missing or "
            "names another site. Expected exactly one Origin header: the address of this server's own page, with its "
            "port. Send the request from that page, or use an API key in place of the cookie."
        )
        await _refuse(scope, receive, send, Problem(Problems.BAD_ORIGIN, detail))


class StripInternalHeaders:
    """Removes the headers by which services prove identity to each other."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            scope["headers"] = [
                (name, value) for name, value in scope["headers"] if not name.startswith(INTERNAL_PREFIX)
            ]
        await self._app(scope, receive, send)


def has_dot_segment(path: str) -> bool:
    """Tell whether a path has a segment that some server may resolve to another path.

    ASGI decodes the path once. It is decoded here until nothing changes, because a server behind the gateway may decode
    again. A backslash counts as a slash, and a segment ends at `;`, as some servers read them. A path that is still
    encoded after `MAX_DECODINGS` is refused.
    """
    if "." not in path and "%" not in path:
        return False
    for _ in range(MAX_DECODINGS):
        segments = path.replace("\\", "/").split("/")
        if any(segment.partition(";")[0] in {".", ".."} for segment in segments):
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
    return True


def may_use_cookie(scope: Scope, cookie: str, origins: frozenset[str], sign_in: str) -> bool:
    """Tell whether a request may use the session cookie that it carries, or get one.

    It may if it carries no such cookie, if it is a safe method over HTTP, or if it has exactly one Origin and that is
    one of `origins` to the letter. A WebSocket handshake is never safe, and a missing Origin is refused. A request to
    the path `sign_in` without a cookie has no Origin, or such a one: a page of another site must not sign a browser in.
    """
    if scope["type"] == "http" and scope["method"] in SAFE_METHODS:
        return True
    sent = lines_of(scope["headers"], b"origin")
    if cookie not in cookies(lines_of(scope["headers"], b"cookie")) and (scope["path"] != sign_in or not sent):
        return True
    return len(sent) == 1 and sent[0] in origins


def _is_probe(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} and scope["path"] in HEALTH


async def _refuse(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": problem.kind.title})
        return
    await problem_response(scope, problem)(scope, receive, send)

"""The first checks of a request: Host, Origin with a cookie, and headers that only services may send."""

import re
from pathlib import Path
from typing import cast

import pytest
from httpx import ASGITransport, AsyncClient
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from api_gateway.browser_sessions import BrowserSessions
from api_gateway.guard import HostAllowList, OriginCheck, StripInternalHeaders, has_dot_segment, may_use_cookie
from shared_clients.postgres import Database

ROOT = Path(__file__).parents[4]

OURS = frozenset({"localhost:8080", "127.0.0.1:8080", "[::1]:8080"})
ORIGINS = frozenset({"http://localhost:8080", "http://127.0.0.1:8080"})
COOKIE = "__Host-flotilla"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the names of the headers that came through."""
    names = b" ".join(name for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": names})


async def status_of(
    app: HostAllowList | OriginCheck, method: str, headers: list[tuple[str, str]], path: str = "/chat"
) -> int:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    await app({"type": "http", "method": method, "path": path, "headers": raw}, receive, send)
    status = sent[0]["status"]
    assert isinstance(status, int)
    return status


@pytest.mark.parametrize("host", ["localhost:8080", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080"])
async def test_configured_host_is_served(host: str) -> None:
    assert await status_of(HostAllowList(echo, OURS), "GET", [("Host", host)]) == 200


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["localhost"],
        ["localhost:80"],
        ["localhost:8081"],
        ["localhost:08080"],
        ["localhost.:8080"],
        [" localhost:8080"],
        ["evil.example"],
        ["evil.example:8080"],
        ["localhost:8080.evil.example"],
        ["evil.example#localhost:8080"],
        ["user@localhost:8080"],
        ["localhost:8080", "evil.example"],
        ["localhost:8080", "localhost:8080"],
        ["localhost:8080,evil.example"],
        ["[::]:8080"],
        ["0.0.0.0:8080"],
        ["127.1:8080"],
        ["[::ffff:127.0.0.1]:8080"],
    ],
)
async def test_any_other_host_is_misdirected(hosts: list[str]) -> None:
    assert await status_of(HostAllowList(echo, OURS), "GET", [("Host", host) for host in hosts]) == 421


@pytest.mark.parametrize("hosts", [["10.244.0.5:8092"], [], ["[fd00::5]:8092"]])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/auth/me", "/livez/", "/"])
async def test_only_probes_answer_under_the_address_of_a_pod(path: str, method: str, hosts: list[str]) -> None:
    probe = path in {"/livez", "/readyz"} and method != "POST"
    answered = await status_of(HostAllowList(echo, OURS), method, [("Host", host) for host in hosts], path)
    assert answered == (200 if probe else 421)


async def test_a_misdirected_request_gets_a_problem() -> None:
    client = AsyncClient(transport=ASGITransport(HostAllowList(echo, OURS)), base_url="http://evil.example")
    answer = await client.get("/chat")
    assert answer.status_code == 421
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:flotilla:problem:misdirected"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "QUERY", "post", "FOO"])
@pytest.mark.parametrize(
    "origins",
    [
        [],
        ["null"],
        [""],
        ["http://localhost"],
        ["http://localhost:8081"],
        ["https://localhost:8080"],
        ["http://localhost:8080/"],
        ["HTTP://LOCALHOST:8080"],
        ["http://localhost:8080.evil.example"],
        ["http://evil.example:8080"],
        ["http://localhost:8080", "http://evil.example"],
        ["http://localhost:8080 http://evil.example"],
    ],
)
async def test_a_change_with_the_cookie_from_another_origin_is_refused(method: str, origins: list[str]) -> None:
    guarded = OriginCheck(echo, cookie=COOKIE, origins=ORIGINS, sign_in="/auth/link")
    headers = [("Cookie", f"a=b; {COOKIE}=secret"), *(("Origin", origin) for origin in origins)]
    assert await status_of(guarded, method, headers) == 403


@pytest.mark.parametrize("cookie", [f"{COOKIE}=x", f"a=b;{COOKIE}=x", f"a=b;  {COOKIE} =x", COOKIE, f"a; {COOKIE}="])
async def test_the_cookie_is_found_however_it_is_written(cookie: str) -> None:
    guarded = OriginCheck(echo, cookie=COOKIE, origins=ORIGINS, sign_in="/auth/link")
    assert await status_of(guarded, "POST", [("Cookie", cookie)]) == 403
    assert await status_of(guarded, "POST", [("Cookie", "a=b"), ("Cookie", cookie)]) == 403


ODD_COOKIES = [
    *(["{}=x"], ["a=b; {}=x"], ["a=b;{}=x;c=d"], ["{} = x"], ["\t{}\t=\tx"], ['{}="x"'], ['a="b; {}=x"'], ["{}=x=y"]),
    *(
        ["a=b,{}=x"],
        ["a", "{}=x"],
        ["{}=", "{}=x"],
        ["{}=x", "{}=y"],
        ["{}"],
        ["; ;{}=x"],
        ["{}%3Dx"],
        ["$Version=1; {}=x"],
    ),
    *(
        ["{}\x00=x"],
        ["\x0b{}=x"],
        ["\xa0{}=x"],
        ["\x85{}=x"],
        ["{}x=x"],
        ["x{}=x"],
        ["a=b\n{}=x"],
        ["a=b\r{}=x"],
        ["{}=\xe9"],
    ),
]


@pytest.mark.parametrize("lines", ODD_COOKIES)
async def test_guard_sees_each_cookie_that_identity_reads(lines: list[str]) -> None:
    browsers = BrowserSessions(cast("Database", None), secure=True)
    raw = [(b"cookie", line.format(browsers.cookie).encode("latin-1")) for line in lines]
    token = browsers.token(Headers(raw=raw))
    scope = {"type": "http", "method": "POST", "path": "/chat", "headers": raw}
    guarded = not may_use_cookie(scope, browsers.cookie, ORIGINS, "/auth/link")
    assert guarded or not token


async def test_no_module_parses_cookies_but_one() -> None:
    sources = [path for folder in ("services", "shared-clients") for path in (ROOT / folder).glob("*/src/**/*.py")]
    sources += (ROOT / "shared-clients" / "src").glob("**/*.py")
    parsing = re.compile(r"\.cookies\b|SimpleCookie|cookie_parser|split\(.;.\)")
    assert {path.name for path in sources if parsing.search(path.read_text())} == {"headers.py"}


@pytest.mark.parametrize(
    "origins", [["null"], [""], ["http://evil.example"], ["http://localhost:8080", "http://evil.example"]]
)
async def test_page_of_another_site_gets_no_cookie(origins: list[str]) -> None:
    guarded = OriginCheck(echo, cookie=COOKIE, origins=ORIGINS, sign_in="/auth/link")
    sent = [("Origin", origin) for origin in origins]
    assert await status_of(guarded, "POST", sent, "/auth/link") == 403
    assert await status_of(guarded, "POST", [], "/auth/link") == 200, "a program sends no Origin"
    assert await status_of(guarded, "POST", [("Origin", "http://localhost:8080")], "/auth/link") == 200


@pytest.mark.parametrize("origin", sorted(ORIGINS))
async def test_a_change_with_the_cookie_from_our_page_is_served(origin: str) -> None:
    guarded = OriginCheck(echo, cookie=COOKIE, origins=ORIGINS, sign_in="/auth/link")
    assert await status_of(guarded, "POST", [("Cookie", f"{COOKIE}=x"), ("Origin", origin)]) == 200


@pytest.mark.parametrize("headers", [[], [("Cookie", "other=x")], [("Authorization", "Bearer k"), ("Origin", "null")]])
async def test_a_change_without_the_cookie_needs_no_origin(headers: list[tuple[str, str]]) -> None:
    assert (
        await status_of(OriginCheck(echo, cookie=COOKIE, origins=ORIGINS, sign_in="/auth/link"), "POST", headers) == 200
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_reading_with_the_cookie_needs_no_origin(method: str) -> None:
    assert (
        await status_of(
            OriginCheck(echo, cookie=COOKIE, origins=ORIGINS, sign_in="/auth/link"), method, [("Cookie", f"{COOKIE}=x")]
        )
        == 200
    )


@pytest.mark.parametrize(
    ("headers", "closed"),
    [
        ([(b"cookie", b"__Host-flotilla=x")], True),
        ([(b"cookie", b"__Host-flotilla=x"), (b"origin", b"http://evil.example")], True),
        ([(b"cookie", b"__Host-flotilla=x"), (b"origin", b"http://localhost:8080")], False),
        ([(b"origin", b"http://evil.example")], False),
    ],
)
async def test_a_websocket_with_the_cookie_opens_only_for_our_page(
    headers: list[tuple[bytes, bytes]], closed: bool
) -> None:
    sent: list[Message] = []

    async def accepting(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    guarded = OriginCheck(accepting, cookie=COOKIE, origins=ORIGINS, sign_in="/auth/link")
    await guarded({"type": "websocket", "path": "/ws", "headers": headers}, receive, send)
    assert sent[0]["type"] == ("websocket.close" if closed else "websocket.accept")


async def test_internal_headers_of_a_client_are_removed() -> None:
    client = AsyncClient(transport=ASGITransport(StripInternalHeaders(echo)), base_url="http://localhost:8080")
    sent = {
        "Flotilla-Identity": "forged",
        "FLOTILLA-SESSION": "forged",
        "Authorization": "Bearer k",
        "X-Flotilla-CSRF": "1",
    }
    names = (await client.get("/chat", headers=sent)).text.split()
    assert not [name for name in names if name.startswith("flotilla-")]
    assert {"authorization", "x-flotilla-csrf", "host"} <= set(names)


async def test_the_lifespan_passes_all_guards() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Message) -> Message:
        return {}

    async def dropped(message: Message) -> None:
        pass

    guarded = HostAllowList(
        OriginCheck(StripInternalHeaders(app), cookie=COOKIE, origins=ORIGINS, sign_in="/auth/link"), OURS
    )
    await guarded({"type": "lifespan"}, nothing, dropped)
    assert seen == ["lifespan"]


@pytest.mark.parametrize(
    "path",
    [
        *("/..", "/.", "/a/..", "/a/../b", "/a/./b", "/a/..;x=1/b", "/a/..\\b", "/a\\..\\b"),
        *("/a/%2e%2e/b", "/a/.%2E/b", "/a%2f..%2fb", "/a/%252e%252e/b", "/a%5c..%5cb"),
        "/a/%25252525252525252e",
    ],
)
def test_path_that_some_server_resolves_to_another_has_a_dot_segment(path: str) -> None:
    assert has_dot_segment(path)


@pytest.mark.parametrize(
    "path", ["/", "/a", "/a.b/c", "/a/...", "/a/..b", "/a/b..", "/.well-known/x", "/a/100%", "/a%20b"]
)
def test_dots_within_a_segment_are_allowed(path: str) -> None:
    assert not has_dot_segment(path)

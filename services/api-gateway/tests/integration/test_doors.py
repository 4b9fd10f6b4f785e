"""Routes forwarded to services, the web chat, probes, and refusals that disclose nothing."""

import asyncio
import re

import httpx
import pytest
from pydantic import SecretStr

from api_gateway.__main__ import serve_metrics
from api_gateway.app import open_app
from api_gateway.pages import POLICY, STATIC
from api_gateway.settings import Settings
from service_process.serving import Stop, bind
from service_process.settings import Mode
from shared_clients.identity import DevKey, Issuer
from shared_clients.redis import open_redis
from tests.problems import problem
from tests.simulators.calling import KEY
from tests.simulators.house import DEV_KEY, House

NOTHING = "01920000-0000-7000-8000-000000000000"
"""An id that nothing has; a fresh one would give the cases another name in every run."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_services_are_reached_under_one_origin(client: httpx.AsyncClient) -> None:
    made = await client.post("/api/v1/sessions", json={"title": "One"})
    assert made.status_code == 201
    location = made.headers["location"]
    assert (await client.patch(location, json={"title": "Two"})).json()["title"] == "Two"
    listed = await client.get("/api/v1/sessions?limit=1")
    assert [one["title"] for one in listed.json()["sessions"]] == ["Two"]
    asked = await client.post("/api/v1/requests", json={"content": "hi"}, headers={"Prefer": "wait=20"})
    assert (asked.status_code, asked.json()["response"]) == (200, {"content": "You said hi."})
    found = await client.get("/api/v1/requests?limit=1")
    assert found.json()["requests"][0]["request_id"] == asked.json()["request_id"]
    assert "link" in found.headers
    assert (await client.delete(location)).status_code == 204


async def test_conditional_request_passes_through(client: httpx.AsyncClient) -> None:
    asked = await client.post("/api/v1/requests", json={"content": "hi"}, headers={"Prefer": "wait=20"})
    path = f"/api/v1/requests/{asked.json()['request_id']}"
    tag = (await client.get(path)).headers["etag"]
    same = await client.get(path, headers={"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)


async def test_identity_header_of_a_client_has_no_effect(client: httpx.AsyncClient) -> None:
    forged = {"Flotilla-Identity": "x.y.z", "Flotilla-Session": "x"}
    made = await client.post("/api/v1/sessions", json={}, headers=forged)
    assert made.status_code == 201
    assert (await client.get(made.headers["location"])).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/api/v1/nothing", 404, "not-found"),
        ("PUT", "/api/v1/dead-letters", 405, "method-not-allowed"),
        ("PUT", "/api/v1/dead-letters/replay", 405, "method-not-allowed"),
        ("GET", "/api/v1/requestsandmore", 404, "not-found"),
        ("GET", "/api/v2/requests", 404, "not-found"),
        ("POST", "/internal/ended", 405, "method-not-allowed"),
        ("GET", "/internal/ended", 404, "not-found"),
        ("GET", f"/api/v1/requests/{NOTHING}/nothing", 404, "not-found"),
        ("PUT", "/api/v1/requests", 405, "method-not-allowed"),
        ("GET", "/assets/nothing.js", 404, "not-found"),
        ("GET", "/assets/../../pages.py", 404, "not-found"),
        ("GET", "/assets/%2e%2e/%2e%2e/pages.py", 404, "not-found"),
        ("GET", "/api/v1/requests/../../../internal/ended", 404, "not-found"),
    ],
)
async def test_unknown_address_is_a_problem(
    client: httpx.AsyncClient, method: str, path: str, status: int, slug: str
) -> None:
    problem(await client.request(method, path), status, slug)


async def test_page_loads_nothing_from_other_origins(house: House) -> None:
    async with house.client(Accept="text/html") as browser:
        page = await browser.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assets = sorted(path.name for path in (STATIC / "assets").iterdir())
        script = next(name for name in assets if name.endswith(".js") and name in page.text)
        asset = await browser.get(f"/assets/{script}")
        assert asset.status_code == 200
        again = await browser.get(f"/assets/{script}", headers={"If-None-Match": asset.headers["etag"]})
        assert again.status_code == 304
    for answer in (page, asset, again):
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    for directive in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert directive in POLICY
    assert "unsafe" not in POLICY


@pytest.mark.parametrize("host", ["evil.example", "localhost", "localhost:1", ""])
async def test_other_hosts_are_not_served(house: House, host: str) -> None:
    async with house.client(Host=host) as browser:
        for path in ("/", "/chat", "/auth/me", "/api/v1/requests"):
            problem(await browser.get(path), 421, "misdirected")


async def test_gateway_is_alive_and_ready(house: House) -> None:
    async with house.client(Accept="*/*") as probe:
        assert (await probe.get("/livez")).status_code == 200
        assert (await probe.get("/readyz")).status_code == 200
        assert "flotilla_" in (await probe.get("/metrics")).text


async def test_api_is_described_in_dev_by_files_of_this_process_alone(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert [source for source in sources if not source.startswith("/docs/")] == ["data:,"]
    for source in sources:
        if source.startswith("/"):
            assert (await client.get(source)).status_code == 200
    document = (await client.get("/openapi.json")).json()
    assert {"/chat", "/api/v1/requests", "/api/v1/sessions", "/api/v1/agents"} <= set(document["paths"])


async def test_production_has_a_cookie_for_https_only_and_no_documentation(house: House) -> None:
    settings = Settings(
        mode=Mode.PRODUCTION,
        database_url=house.where["database_url"],
        bus_url="kafka://nowhere:1",
        redis_url=SecretStr("redis://nowhere:1"),
        allowed_hosts="chat.example",
    )
    async with (
        open_redis("memory://") as redis,
        open_app(settings, house.services, redis, Issuer("api-gateway", KEY), keys=DevKey(DEV_KEY)) as gateway,
        httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app), base_url="https://chat.example") as client,
    ):
        key = {"Authorization": f"Bearer {DEV_KEY}"}
        code = (await client.post("/auth/codes", headers=key)).json()
        used = await client.post("/auth/link", json=code)
        assert used.headers["set-cookie"].startswith("__Host-flotilla=")
        assert "; Secure" in used.headers["set-cookie"]
        client.cookies.clear()
        token = used.headers["set-cookie"].partition(";")[0]
        for origin, status in (("https://chat.example", 201), ("http://chat.example", 403), ("", 403)):
            headers = {"Cookie": token, **({"Origin": origin} if origin else {})}
            assert (await client.post("/auth/codes", headers=headers)).status_code == status
        for path in ("/docs", "/openapi.json", "/metrics"):
            problem(await client.get(path), 404, "not-found")


async def test_production_has_its_metrics_at_a_port_of_their_own(house: House) -> None:
    listener, stop = bind("127.0.0.1", 0), Stop()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    serving = asyncio.create_task(serve_metrics(house.gateway, listener, stop))
    try:
        async with httpx.AsyncClient(base_url=url) as scraper:
            answer = await scraper.get("/metrics")
            assert answer.status_code == 200
            assert "flotilla_" in answer.text
            problem(await scraper.get("/auth/me"), 404, "not-found")
    finally:
        stop.request()
        await serving


async def test_metrics_are_not_read_under_another_host(house: House) -> None:
    async with house.client(Host="evil.example") as rebound:
        problem(await rebound.get("/metrics"), 421, "misdirected")
        assert (await rebound.get("/livez")).status_code == 200


PRIVATE = [
    *(("POST", "/auth/link", 422), ("POST", "/auth/codes", 201), ("GET", "/auth/me", 200)),
    *(("GET", "/api/v1/sessions", 200), ("POST", "/api/v1/sessions", 201), ("GET", "/api/v1/sessions/{session}", 200)),
    *(("PATCH", "/api/v1/sessions/{session}", 200), ("GET", "/api/v1/sessions/{session}/messages", 200)),
    *(("GET", "/api/v1/requests", 200), ("POST", "/api/v1/requests", 202), ("GET", "/api/v1/requests/{run}", 200)),
    *(("GET", "/api/v1/requests/{run}/status", 200), ("GET", "/api/v1/requests/{run}/result?wait=10", 200)),
    *(("DELETE", "/api/v1/requests/{run}", 202), ("POST", "/chat", 200), ("GET", "/chat/{run}", 200)),
    *(
        ("GET", "/api/v1/dead-letters", 200),
        ("GET", "/api/v1/nothing", 404),
        ("DELETE", "/api/v1/sessions/{session}", 204),
    ),
]


@pytest.mark.parametrize(("method", "path", "status"), PRIVATE)
async def test_private_data_stay_in_no_cache_and_are_what_they_say(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    asked = await client.post("/chat", json={"content": "hello"})
    names = {"run": asked.headers["flotilla-execution-id"], "session": asked.headers["flotilla-session-id"]}
    bodies = {"/api/v1/requests": {"content": "hello"}, "/chat": {"content": "hello"}}
    body = bodies.get(path, {"title": "x"} if method == "PATCH" else {}) if method in {"POST", "PATCH"} else None
    answer = await client.request(method, path.format(**names), json=body)
    assert answer.status_code == status
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]

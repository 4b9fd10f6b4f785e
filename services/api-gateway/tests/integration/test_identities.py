"""Every route with every identity: nobody but the owner reads, changes or ends what a person has."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from fastapi.routing import APIRoute

from api_gateway import api, dead_letters, queries
from api_gateway.admission.concurrency import SIGN_IN_PATH
from api_gateway.usecases.sign_in import hash_secret
from shared_clients.identity import Issuer
from shared_models.dead_letters import OPERATE, OPERATE_FLEET, READ_CONTENT
from shared_models.ids import new_id
from shared_models.requests import Principal
from tests.simulators.calling import KEY
from tests.simulators.house import DEV_KEY, House, person, signed_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET: Final = "the-owner-wrote-this"
ROUTES: Final = [
    *(("GET", "/auth/me"), ("POST", "/auth/codes"), ("POST", "/auth/logout")),
    *(("POST", "/chat"), ("GET", "/chat/{run}")),
    *(("GET", "/api/v1/requests"), ("POST", "/api/v1/requests"), ("GET", "/api/v1/requests?session_id={session}")),
    *(
        ("GET", "/api/v1/requests/{run}"),
        ("GET", "/api/v1/requests/{run}/status"),
        ("DELETE", "/api/v1/requests/{run}"),
    ),
    *(("GET", "/api/v1/requests/{run}/result"), ("GET", "/api/v1/requests/{run}/result?wait=1")),
    *(("GET", "/api/v1/sessions"), ("POST", "/api/v1/sessions"), ("GET", "/api/v1/sessions/{session}")),
    *(("PATCH", "/api/v1/sessions/{session}"), ("DELETE", "/api/v1/sessions/{session}")),
    *(("GET", "/api/v1/sessions/{session}/messages"), ("GET", "/api/v1/dead-letters")),
    *(("GET", "/api/v1/dead-letters/{letter}"), ("POST", "/api/v1/dead-letters/{letter}/replay")),
    *(("POST", "/api/v1/dead-letters/replay"), ("POST", "/api/v1/dead-letters/{letter}/discard")),
    *(("GET", "/api/v1/agents"), ("GET", "/api/v1/agents/x"), ("GET", "/api/v1/runs")),
    ("GET", REPORT := "/api/v1/runs/{run}"),
    *(("GET", "/internal/ended"), ("DELETE", "/internal/sessions/{session}"), ("POST", "/internal/retries")),
    *(("GET", "/api/v1/nothing"), ("POST", "/events"), ("GET", "/openapi.json.bak")),
]
OWNED: Final = [
    (method, path) for method, path in ROUTES if ("{run}" in path or "{session}" in path) and path != REPORT
]
"""The routes of what one person owns; the report of a run is for the operators of its tenant."""
NOTHING: Final = "01920000-0000-7000-8000-000000000000"
ALL_SCOPES: Final = ("requests", "sessions", OPERATE, OPERATE_FLEET, READ_CONTENT)


@dataclass(frozen=True, slots=True)
class Owned:
    """What the owner has: a run that has ended, in a session."""

    owner: Principal
    names: dict[str, str]

    def address(self, path: str) -> str:
        return path.format(**self.names, letter=f"request-manager.{new_id()}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owned(house: House) -> AsyncGenerator[Owned]:
    owner = person("acme", "requests", "sessions")
    async with signed_in(house, owner) as client:
        asked = await client.post("/chat", json={"content": SECRET})
        names = {"run": asked.headers["flotilla-execution-id"], "session": asked.headers["flotilla-session-id"]}
        kept = Owned(owner, names)
        yield kept
        result = await client.get(kept.address("/api/v1/requests/{run}/result"))
        assert result.json()["response"] == {"content": f"You said {SECRET}."}, "nobody has deleted or changed it"
        shown = await client.get(kept.address("/api/v1/sessions/{session}"))
        assert shown.json()["title"] == SECRET


def body_of(method: str, path: str, names: dict[str, str]) -> dict[str, str] | None:
    bodies = {"/chat": {"content": "x", "session_id": names["session"]}, "/api/v1/sessions": {}}
    bodies["/api/v1/requests"] = bodies["/chat"]
    return bodies.get(path, {"title": "x"} if method == "PATCH" else {}) if method in {"POST", "PATCH"} else None


@asynccontextmanager
async def browser_with(house: House, principal: Principal, lifetime: timedelta) -> AsyncGenerator[httpx.AsyncClient]:
    token = new_id().hex
    async with house.gateway.database.transaction() as tx:
        await queries.insert_session(tx, hash_secret(token), principal, lifetime)
    cookie = f"flotilla-{urlsplit(house.url).port}={token}"
    async with house.client(Cookie=cookie, Origin=house.url) as client:
        yield client


STRANGERS: Final = ("nothing", "wrong key", "wrong cookie", "expired session", "inner token", "basic", "two keys")


@asynccontextmanager
async def stranger(house: House, kind: str, owner: Principal) -> AsyncGenerator[httpx.AsyncClient]:
    """Open a client without a valid credential."""
    cookie = f"flotilla-{urlsplit(house.url).port}"
    token = Issuer("api-gateway", KEY).issue(owner, audience="request-manager", method="GET", path="/api/v1/requests")
    headers = {
        "nothing": {"X-Nothing": "1"},
        "wrong key": {"Authorization": f"Bearer {DEV_KEY}x"},
        "wrong cookie": {"Cookie": f"{cookie}={new_id().hex}", "Origin": house.url},
        "inner token": {"Flotilla-Identity": token, "flotilla-identity-2": token},
        "basic": {"Authorization": f"Basic {DEV_KEY}"},
        "two keys": {"Authorization": f"Bearer {DEV_KEY}, Bearer {DEV_KEY}"},
    }
    if kind == "expired session":
        async with browser_with(house, owner, timedelta(seconds=-1)) as client:
            yield client
        return
    async with house.client(**headers[kind]) as client:
        yield client


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_route_serves_a_client_without_an_identity(
    house: House, owned: Owned, method: str, path: str, kind: str
) -> None:
    async with stranger(house, kind, owned.owner) as client:
        answer = await client.request(method, owned.address(path), json=body_of(method, path, owned.names))
    assert answer.status_code in {401, 404, 405}
    assert (answer.status_code == 401) == path.startswith(("/auth", "/chat", "/api/v1"))
    assert SECRET not in answer.text


def others(owner: Principal) -> dict[str, Principal]:
    same = owner.model_copy
    every = frozenset(ALL_SCOPES)
    return {
        "another person of the tenant": person(owner.tenant, *ALL_SCOPES),
        "an operator of another tenant": person("globex", *ALL_SCOPES),
        "the same person in another tenant": same(update={"tenant": "globex", "scopes": every}),
        "the same subject of another issuer": same(update={"issuer": "another-idp", "scopes": every}),
        "a subject that looks like the owner's": same(update={"subject": f"{owner.subject} ", "scopes": every}),
        "a tenant that looks like the owner's": same(update={"tenant": "Acme", "scopes": every}),
        "a subject with the issuer inside": same(
            update={"subject": f"{owner.issuer}|{owner.subject}", "scopes": every}
        ),
    }


@pytest.mark.parametrize("kind", list(others(person("acme"))))
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_other_person_or_tenant_gets_what_the_owner_has(
    house: House, owned: Owned, method: str, path: str, kind: str
) -> None:
    other = others(owned.owner)[kind]
    async with signed_in(house, other) as client:
        answer = await client.request(method, owned.address(path), json=body_of(method, path, owned.names))
    assert SECRET not in answer.text
    if path == REPORT:
        assert answer.status_code == (200 if other.tenant == owned.owner.tenant else 404)
    if ((method, path) in OWNED and "?" not in path) or (path in {"/chat", "/api/v1/requests"} and method == "POST"):
        assert answer.status_code in {404, 405}


@pytest.mark.parametrize(
    ("method", "path", "scopes"),
    [
        (method, path, scopes)
        for method, path in OWNED
        for scopes in ((), ("requests",), ("sessions",))
        if not path.startswith("/internal") and ("sessions" if "/sessions" in path else "requests") not in scopes
    ],
)
async def test_owner_without_the_scope_of_a_route_is_refused(
    house: House, owned: Owned, method: str, path: str, scopes: tuple[str, ...]
) -> None:
    weak = owned.owner.model_copy(update={"scopes": frozenset(scopes)})
    async with signed_in(house, weak) as client:
        answer = await client.request(method, owned.address(path), json=body_of(method, path, owned.names))
    assert answer.status_code == 403
    assert SECRET not in answer.text


async def test_every_route_of_the_gateway_is_in_the_table() -> None:
    routes = [route for route in (*api.router.routes, *dead_letters.router.routes) if isinstance(route, APIRoute)]
    tried = [(method, path.partition("?")[0]) for method, path in ROUTES]
    named = {"run": NOTHING, "session": NOTHING, "letter": "x"}
    for route in routes:
        paths = [path.format(**named) for method, path in tried if method in (route.methods or set())]
        assert any(route.path_regex.match(path) for path in paths) or route.path == SIGN_IN_PATH, route.path

"""Signing in: codes that work once, sessions that can be revoked, and no way in without a credential."""

import asyncio
from collections.abc import AsyncGenerator

import httpx
import pytest
import pytest_asyncio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from api_gateway import queries
from api_gateway.app import SCHEMA
from api_gateway.browser_sessions import CACHE_SECONDS, MAX_CACHED, AnyOf, BrowserSessions, CachedSession
from api_gateway.usecases.sign_in import InvalidCode, OtherPerson, SignedIn, hash_secret, make_code, sign_in
from shared_clients.identity import DenyAll, DevKey
from shared_clients.postgres import Database, open_database
from shared_models.requests import Principal
from tests.problems import problem
from tests.simulators.asking import somebody
from tests.simulators.house import DEV_KEY, House
from tests.simulators.rows import rows, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(database_url: str) -> AsyncGenerator[Database]:
    async with open_database(database_url, SCHEMA) as opened:
        yield opened


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def cookie(browsers: BrowserSessions, token: str) -> Headers:
    return Headers({"cookie": f"a=b; {browsers.cookie}={token}"})


async def end_session(browsers: BrowserSessions, token: str) -> None:
    headers = [(b"cookie", f"{browsers.cookie}={token}".encode())]
    await browsers.end(Request({"type": "http", "headers": headers}), Response())


async def signed_in(database: Database, principal: Principal) -> str:
    outcome = await sign_in(database, await make_code(database, principal))
    assert isinstance(outcome, SignedIn)
    return outcome.token


async def test_code_signs_in_once_however_many_try_it_at_once(database: Database) -> None:
    code = await make_code(database, somebody())
    outcomes = await asyncio.gather(*(sign_in(database, code) for _ in range(8)))
    assert sum(isinstance(outcome, SignedIn) for outcome in outcomes) == 1
    assert await sign_in(database, code) == InvalidCode()


async def test_expired_or_unknown_code_signs_nobody_in(database: Database) -> None:
    code = await make_code(database, somebody())
    await run(database, "UPDATE sign_in_codes SET expires_at = now()")
    for tried in (code, "", "x" * 43):
        assert await sign_in(database, tried) == InvalidCode()


async def test_only_hashes_are_stored(database: Database) -> None:
    code = await make_code(database, somebody())
    token = await signed_in(database, somebody())
    stored = str(await rows(database, "SELECT * FROM sign_in_codes")) + str(
        await rows(database, "SELECT * FROM browser_sessions")
    )
    assert code not in stored
    assert token not in stored
    assert str(hash_secret(code)) in stored


async def test_session_has_the_persons_rights_and_a_credential_of_its_own(database: Database) -> None:
    person, browsers = somebody(), BrowserSessions(database, secure=False)
    one, two = [await browsers.authenticate(cookie(browsers, await signed_in(database, person))) for _ in range(2)]
    assert one is not None
    assert two is not None
    assert (one.issuer, one.subject, one.tenant, one.scopes) == (
        person.issuer,
        person.subject,
        person.tenant,
        person.scopes,
    )
    assert one.channel == "web"
    assert len({one.credential, two.credential, person.credential}) == 3


@pytest.mark.parametrize("value", [None, "", "flotilla=", "flotilla=x", "other=x", "flotilla"])
async def test_cookie_without_a_session_identifies_nobody(database: Database, value: str | None) -> None:
    headers = Headers({} if value is None else {"cookie": value})
    assert await BrowserSessions(database, secure=False).authenticate(headers) is None


async def test_expired_session_identifies_nobody(database: Database) -> None:
    browsers = BrowserSessions(database, secure=False)
    token = await signed_in(database, somebody())
    await run(database, "UPDATE browser_sessions SET expires_at = now()")
    assert await browsers.authenticate(cookie(browsers, token)) is None


async def test_session_ends_here_at_once_and_on_other_replicas_within_the_promise(database: Database) -> None:
    clock = Clock()
    here, elsewhere = [BrowserSessions(database, secure=False, clock=clock) for _ in range(2)]
    token = await signed_in(database, somebody())
    for replica in (here, elsewhere):
        assert await replica.authenticate(cookie(replica, token)) is not None
    await end_session(here, token)
    assert await here.authenticate(cookie(here, token)) is None
    assert await elsewhere.authenticate(cookie(elsewhere, token)) is not None, "it is cached there"
    clock.now += CACHE_SECONDS
    assert await elsewhere.authenticate(cookie(elsewhere, token)) is None
    assert CACHE_SECONDS <= 60


async def test_cache_of_sessions_has_a_bound(database: Database) -> None:
    browsers = BrowserSessions(database, secure=False, clock=Clock())
    for number in range(MAX_CACHED):
        browsers._cache[number.to_bytes(4)] = CachedSession(somebody(), 0.0)
    token = await signed_in(database, somebody())
    assert await browsers.authenticate(cookie(browsers, token)) is not None
    assert len(browsers._cache) == MAX_CACHED


async def test_expired_codes_and_sessions_are_deleted(database: Database) -> None:
    await make_code(database, somebody())
    await signed_in(database, somebody())
    for table in ("sign_in_codes", "browser_sessions"):
        await run(database, f"UPDATE {table} SET expires_at = now() - interval '1 second'")
    await signed_in(database, somebody())
    await queries.delete_expired_sign_ins(database)
    assert len(await rows(database, "SELECT 1 AS one FROM browser_sessions")) == 1
    assert await rows(database, "SELECT 1 AS one FROM sign_in_codes") == []


async def test_no_credentials_identify_nobody_and_any_of_several_may_identify(database: Database) -> None:
    assert await DenyAll().authenticate(Headers({"authorization": f"Bearer {DEV_KEY}"})) is None
    assert await AnyOf().authenticate(Headers({"authorization": f"Bearer {DEV_KEY}"})) is None
    several = AnyOf(DenyAll(), DevKey(DEV_KEY))
    assert await several.authenticate(Headers({"authorization": f"Bearer {DEV_KEY}"})) is not None
    assert await several.authenticate(Headers({"authorization": "Bearer other"})) is None


@pytest.mark.parametrize(("secure", "flags"), [(False, set[str]()), (True, {"Secure"})])
async def test_cookie_is_for_our_own_page_only(database: Database, secure: bool, flags: set[str]) -> None:
    browsers, response = BrowserSessions(database, secure=secure), Response()
    browsers.set_cookie(response, "token")
    first, *attributes = response.headers["set-cookie"].split("; ")
    assert first == ("__Host-flotilla=token" if secure else "flotilla=token")
    assert set(attributes) == {"HttpOnly", "Max-Age=2592000", "Path=/", "SameSite=strict"} | flags
    assert BrowserSessions(database, secure=secure, port=8092).cookie == f"{browsers.cookie}-8092"


@pytest.mark.parametrize(
    "lines",
    [["a=b", "{}"], ["{}", "a=b"], ["a=b; {}; c=d"], ["a=b;{}"], ["{}", "{}"]],
    ids=["second line", "first line", "among others", "without a space", "twice"],
)
async def test_cookie_is_found_in_every_line(database: Database, lines: list[str]) -> None:
    browsers = BrowserSessions(database, secure=False, port=8092)
    own = f"{browsers.cookie}={await signed_in(database, somebody())}"
    headers = Headers(raw=[(b"cookie", line.format(own).encode()) for line in lines])
    assert await browsers.authenticate(headers) is not None


async def test_cookie_of_a_fleet_at_another_port_is_not_read(database: Database) -> None:
    here, there = (BrowserSessions(database, secure=False, port=port) for port in (8080, 8092))
    assert await here.authenticate(cookie(there, await signed_in(database, somebody()))) is None


async def test_link_signs_a_browser_in_and_out(house: House, client: httpx.AsyncClient) -> None:
    made = await client.post("/auth/codes")
    assert made.status_code == 201
    async with house.client(Origin=house.url) as browser:
        used = await browser.post("/auth/link", json=made.json())
        assert (used.status_code, used.content) == (204, b"")
        assert (await browser.get("/auth/me")).json() == {"subject": "developer", "tenant": "default"}
        assert (await browser.post("/api/v1/sessions", json={})).status_code == 201
        elsewhere = {"Origin": "http://evil.example"}
        assert (await browser.post("/api/v1/sessions", json={}, headers=elsewhere)).status_code == 403
        out = await browser.post("/auth/logout")
        assert out.status_code == 204
        assert "Max-Age=0" in out.headers["set-cookie"]
        token = used.headers["set-cookie"].partition(";")[0]
        assert (await browser.get("/auth/me", headers={"Cookie": token})).status_code == 401
    again = await client.post("/auth/link", json=made.json())
    assert again.status_code == 401
    assert "flotilla link" in again.json()["detail"]


async def test_link_of_another_person_asks_before_it_changes_who_is_signed_in(house: House) -> None:
    database = house.gateway.database
    ada, bob = somebody(), somebody()
    codes = [await make_code(database, person) for person in (ada, bob)]
    async with house.client(Origin=house.url) as browser:
        first = await browser.post("/auth/link", json={"code": codes[0]})
        detail = problem(await browser.post("/auth/link", json={"code": codes[1]}), 409, "other-person")
        assert f"signed in as {ada.subject} of {ada.tenant}" in detail
        assert f"sign it in as {bob.subject} of {bob.tenant}" in detail
        assert (await browser.get("/auth/me")).json()["subject"] == ada.subject, "nothing has changed"
        elsewhere = {"Origin": "http://evil.example"}
        forged = await browser.post("/auth/link", json={"code": codes[1], "replace": True}, headers=elsewhere)
        problem(forged, 403, "bad-origin")
        assert (await browser.post("/auth/link", json={"code": codes[1], "replace": True})).status_code == 204
        assert (await browser.get("/auth/me")).json()["subject"] == bob.subject
        token = first.headers["set-cookie"].partition(";")[0]
        assert (await browser.get("/auth/me", headers={"Cookie": token})).status_code == 401, "that session has ended"


@pytest.mark.parametrize("change", ["issuer", "subject", "tenant"])
async def test_person_is_another_one_by_issuer_subject_or_tenant(database: Database, change: str) -> None:
    person = somebody()
    token, other = await signed_in(database, person), person.model_copy(update={change: f"{change}-of-another"})
    code = await make_code(database, other)
    outcome = await sign_in(database, code, earlier=token)
    assert isinstance(outcome, OtherPerson)
    assert isinstance(await sign_in(database, code, earlier=token, replace=True), SignedIn)


async def test_same_person_signs_in_again_without_being_asked_and_the_earlier_session_ends(database: Database) -> None:
    person, browsers = somebody(), BrowserSessions(database, secure=False)
    token = await signed_in(database, person)
    outcome = await sign_in(database, await make_code(database, person), earlier=token)
    assert isinstance(outcome, SignedIn)
    assert await browsers.authenticate(cookie(browsers, outcome.token)) is not None
    assert await browsers.authenticate(cookie(browsers, token)) is None


async def test_page_of_another_site_cannot_sign_a_browser_in(house: House) -> None:
    code = await make_code(house.gateway.database, somebody())
    for origin in ("http://evil.example", "null", "", house.url + "0"):
        async with house.client(Origin=origin) as browser:
            problem(await browser.post("/auth/link", json={"code": code}), 403, "bad-origin")
    async with house.client(Origin=house.url) as browser:
        assert (await browser.post("/auth/link", json={"code": code})).status_code == 204


@pytest.mark.parametrize("body", [{}, {"code": 7}, {"code": "x", "more": 1}, {"code": "x", "replace": "perhaps"}])
async def test_link_without_a_code_is_refused(client: httpx.AsyncClient, body: dict[str, object]) -> None:
    assert (await client.post("/auth/link", json=body)).status_code == 422


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", "/chat"), ("GET", "/chat/01a1fe6e-e144-7457-9c2f-1d1ddcaa269d"), ("POST", "/api/v1/requests")),
        *(("GET", "/api/v1/requests"), ("GET", "/api/v1/sessions"), ("DELETE", "/api/v1/requests/x")),
        *(("POST", "/auth/codes"), ("GET", "/auth/me"), ("POST", "/auth/logout"), ("PATCH", "/api/v1/anything")),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        {"X": "y"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": DEV_KEY},
        {"Authorization": f"Basic {DEV_KEY}"},
        {"Authorization": f"Bearer {DEV_KEY}x"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer{DEV_KEY}"},
        {"Cookie": f"flotilla={DEV_KEY}"},
        {"Flotilla-Identity": "x.y.z"},
    ],
)
async def test_no_route_lets_anybody_in_without_an_identity(
    house: House, method: str, path: str, headers: dict[str, str]
) -> None:
    async with house.client(Origin=house.url, **headers) as nobody:
        answer = await nobody.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["type"] == "urn:flotilla:problem:no-identity"

"""The HTTP door: every status and header, and nothing that belongs to another person."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from uuid import UUID

import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx import Response
from pydantic import SecretStr

from request_manager.app import NAME, open_app
from request_manager.domain import Accepted
from request_manager.settings import Settings
from service_process.settings import Mode
from shared_clients.bus.memory import MemoryBus
from shared_clients.bus.port import Message
from shared_clients.identity import IDENTITY_HEADER, Issuer, generate_key
from shared_clients.redis import open_redis
from shared_models.catalog import REQUEST_CREATED
from shared_models.ids import new_id
from shared_models.requests import FailureReason, RequestCreated
from tests.problems import problem
from tests.simulators.asking import ended, failed, ready, running
from tests.simulators.calling import Caller, trusted

NOTHING = "01920000-0000-7000-8000-000000000000"
"""An id that nothing has; a fresh one would give the cases another name in every run."""

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUESTS = "/api/v1/requests"


class Agents:
    """agent-service: it receives events, and answers when a test calls `answer`."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.received: dict[str, asyncio.Future[Message]] = defaultdict(asyncio.get_running_loop().create_future)

    async def receive(self, message: Message) -> None:
        future = self.received[f"{message.attributes['correlationid']} {message.attributes['type']}"]
        if not future.done():
            future.set_result(message)

    async def answer(self, asked: Response, content: str = "Noon.", turn: int = 1) -> None:
        await self.bus.publish(ended(accepted(asked, turn), ready(content)))


def accepted(asked: Response, turn: int = 1) -> Accepted:
    body = asked.json()
    return Accepted(UUID(body["request_id"]), UUID(body["session_id"]), turn)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus() -> AsyncGenerator[MemoryBus]:
    bus = MemoryBus()
    yield bus
    await bus.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agents(bus: MemoryBus) -> AsyncGenerator[Agents]:
    agents = Agents(bus)
    async with bus.subscribe("agent-service", frozenset({"flotilla.requests"}), agents.receive):
        yield agents


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(database_url: str, bus: MemoryBus, agents: Agents) -> AsyncGenerator[FastAPI]:
    settings = Settings(
        mode=Mode.DEV, database_url=SecretStr(database_url), bus_url="memory://", redis_url=SecretStr("memory://")
    )
    async with open_redis("memory://") as redis, open_app(settings, bus, redis, trusted(NAME)) as opened:
        yield opened


@pytest.fixture
def call(app: FastAPI) -> Caller:
    return Caller(app, NAME)


async def test_request_is_accepted_with_its_location_and_links(call: Caller, agents: Agents) -> None:
    answer = await call("POST", REQUESTS, json={"content": "What time is it?"})
    assert answer.status_code == 202
    body = answer.json()
    assert set(body) == {"request_id", "session_id", "status", "links"}
    assert body["status"] == "accepted"
    assert answer.headers["location"] == body["links"]["self"] == f"{REQUESTS}/{body['request_id']}"
    assert answer.headers["cache-control"] == "no-store"
    assert body["links"]["stream"] == f"/chat/{body['request_id']}"
    async with asyncio.timeout(5):
        event = await agents.received[f"{body['request_id']} {REQUEST_CREATED.name}"]
    assert event.attributes["partitionkey"] == body["session_id"]


@pytest.mark.parametrize(
    ("body", "status", "slug", "detail"),
    [
        (b"", 400, "invalid-json", "not JSON"),
        (b"{", 400, "invalid-json", "not JSON"),
        (b'{"content": "a", "content": "b"}', 400, "invalid-json", "not JSON"),
        (b"[]", 422, "invalid-body", "object"),
        (b"{}", 422, "invalid-body", "/content"),
        (b'{"content": ""}', 422, "invalid-body", "/content"),
        (b'{"content": 7}', 422, "invalid-body", "/content"),
        (b'{"content": []}', 422, "invalid-body", "/content"),
        (b'{"content": "hi", "mood": "good"}', 422, "invalid-body", "/mood"),
        (b'{"content": "hi", "session_id": "x"}', 422, "invalid-body", "/session_id"),
        (b'{"content": "hi", "agent": "No Such Name"}', 422, "invalid-body", "/agent"),
        (b'{"content": "hi", "metadata": {"a": 1}}', 422, "invalid-body", "/metadata/a"),
        (b'{"content": "a\\u0000b"}', 422, "invalid-body", "/content"),
        (b'{"content": "%s"}' % (b"x" * 131_073), 422, "invalid-body", "/content"),
        (b'{"content": "%s"}' % (b"x" * 300_000), 413, "body-too-large", "at most"),
    ],
)
async def test_body_that_cannot_be_taken_is_a_problem_that_says_where(
    call: Caller, body: bytes, status: int, slug: str, detail: str
) -> None:
    answer = await call("POST", REQUESTS, content=body)
    assert detail in problem(answer, status, slug)


async def test_text_that_fits_a_body_but_no_event_is_too_large(call: Caller) -> None:
    text = "\u20ac" * 88_000  # three bytes each
    answer = await call("POST", REQUESTS, content=f'{{"content": "{text}"}}'.encode())
    assert "262144" in problem(answer, 413, "body-too-large")


async def test_body_of_another_media_type_is_refused(call: Caller) -> None:
    answer = await call("POST", REQUESTS, content=b'{"content": "hi"}', headers={"content-type": "text/plain"})
    problem(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize("path", [REQUESTS, f"{REQUESTS}/{NOTHING}", f"{REQUESTS}/{NOTHING}/result"])
async def test_identity_that_was_not_signed_for_this_call_is_refused(call: Caller, path: str) -> None:
    right, wrong = call.issuer, Issuer("api-gateway", generate_key())
    tokens = [
        "",
        "nonsense",
        right.issue(call.principal, audience=NAME, method="POST", path=path),
        right.issue(call.principal, audience=NAME, method="GET", path=f"{REQUESTS}/other"),
        right.issue(call.principal, audience="agent-service", method="GET", path=path),
        wrong.issue(call.principal, audience=NAME, method="GET", path=path),
    ]
    for headers in ({}, *({IDENTITY_HEADER: token} for token in tokens)):
        answer = await call.raw("GET", path, headers=headers)
        problem(answer, 401, "no-identity")
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_same_key_replays_the_stored_answer(call: Caller) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = await call("POST", REQUESTS, json={"content": "hi"}, headers=key)
    again = await call("POST", REQUESTS, json={"content": "hi"}, headers=key)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["location"] == first.headers["location"]
    other = await call("POST", REQUESTS, json={"content": "ho"}, headers=key)
    assert "fresh key" in problem(other, 422, "idempotency-key-reused")
    other_person = await call.another()("POST", REQUESTS, json={"content": "ho"}, headers=key)
    assert other_person.status_code == 202
    assert other_person.json()["request_id"] != first.json()["request_id"]


@pytest.mark.parametrize("key", ["", "with space", "x" * 256, "t\tab"])
async def test_malformed_key_is_refused(call: Caller, key: str) -> None:
    answer = await call("POST", REQUESTS, json={"content": "hi"}, headers={"Idempotency-Key": key})
    assert "Idempotency-Key" in problem(answer, 400, "bad-header")


async def test_second_message_goes_into_the_session_and_a_strange_session_is_unknown(call: Caller) -> None:
    first = (await call("POST", REQUESTS, json={"content": "hi"})).json()
    body = {"content": "again", "session_id": first["session_id"]}
    second = await call("POST", REQUESTS, json=body)
    assert second.json()["session_id"] == first["session_id"]
    assert (await call("GET", second.headers["location"])).json()["turn"] == 2
    problem(await call.another()("POST", REQUESTS, json=body), 404, "unknown-session")
    problem(await call.another(tenant="other")("POST", REQUESTS, json=body), 404, "unknown-session")
    unknown = {"content": "hi", "session_id": str(new_id())}
    problem(await call("POST", REQUESTS, json=unknown), 404, "unknown-session")


async def test_session_that_the_identity_vouches_for_is_opened(app: FastAPI) -> None:
    session = new_id()
    vouched = Caller(app, NAME, sessions=frozenset({session}))
    answer = await vouched("POST", REQUESTS, json={"content": "hi", "session_id": str(session)})
    assert answer.status_code == 202
    assert answer.json()["session_id"] == str(session)


async def test_caller_who_prefers_to_wait_gets_the_result(call: Caller, agents: Agents) -> None:
    key = {"Idempotency-Key": "waiting"}
    first = await call("POST", REQUESTS, json={"content": "hi"}, headers=key)
    waiting = asyncio.create_task(
        call("POST", REQUESTS, json={"content": "hi"}, headers={**key, "Prefer": "respond-async, wait=20"})
    )
    await agents.answer(first, "Noon.")
    answer = await waiting
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    body = answer.json()
    assert body["response"] == {"content": "Noon."}
    assert set(body) == {
        *("request_id", "session_id", "turn", "status", "response", "agent"),
        *("revision", "usage", "created_at", "completed_at"),
    }


@pytest.mark.parametrize("prefer", ["wait=0", "wait=x", "handling=lenient", "wait=-1"])
async def test_caller_who_does_not_wait_long_enough_gets_a_202(call: Caller, prefer: str) -> None:
    answer = await call("POST", REQUESTS, json={"content": "hi"}, headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert answer.headers["location"]
    assert "preference-applied" not in answer.headers


async def test_request_is_shown_with_an_etag_of_its_state(call: Caller, agents: Agents) -> None:
    asked = await call("POST", REQUESTS, json={"content": "hi"})
    location = asked.headers["location"]
    for path in (location, f"{location}/status"):
        answer = await call("GET", path)
        assert answer.status_code == 200
        assert answer.json()["status"] == "accepted"
        assert answer.headers["cache-control"] == "no-store"
        tag = answer.headers["etag"]
        for header in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            same = await call("GET", path, headers={"If-None-Match": header})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag), header
    await agents.bus.publish(running(accepted(asked)))
    changed = await call("GET", location, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.json()["status"] == "running"
    assert changed.headers["etag"] != tag


async def test_result_is_not_ready_and_then_is(call: Caller, agents: Agents) -> None:
    asked = await call("POST", REQUESTS, json={"content": "hi"})
    result = asked.json()["links"]["result"]
    early = await call("GET", result)
    assert early.status_code == 202
    assert early.headers["retry-after"] == "1"
    assert early.headers["location"] == result
    await agents.answer(asked)
    late = await call("GET", result)
    assert late.status_code == 200
    assert late.json()["response"] == {"content": "Noon."}
    assert (await call("GET", result, headers={"If-None-Match": late.headers["etag"]})).status_code == 304


async def test_failure_is_a_result_with_a_reason(call: Caller, agents: Agents) -> None:
    asked = await call("POST", REQUESTS, json={"content": "hi"})
    await agents.bus.publish(ended(accepted(asked), failed(FailureReason.MODEL_CUT, "It broke off.")))
    answer = await call("GET", asked.json()["links"]["result"])
    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"] == {"reason": "model_cut", "message": "It broke off."}


@pytest.mark.parametrize("tail", ["", "/status", "/result"])
async def test_long_poll_returns_at_the_end_or_at_the_timeout(call: Caller, agents: Agents, tail: str) -> None:
    asked = await call("POST", REQUESTS, json={"content": "hi"})
    path = f"{asked.headers['location']}{tail}"
    assert (await call("GET", f"{path}?wait=0.05")).json()["status"] == "accepted"
    polling = asyncio.create_task(call("GET", f"{path}?wait=20"))
    await asyncio.sleep(0)
    await agents.answer(asked)
    answer = await polling
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")


@pytest.mark.parametrize("wait", ["-1", "x", "nan", "-inf", ""])
async def test_malformed_wait_is_refused(call: Caller, wait: str) -> None:
    asked = await call("POST", REQUESTS, json={"content": "hi"})
    answer = await call("GET", f"{asked.headers['location']}?wait={wait}")
    problem(answer, 422, "invalid-parameter")


async def test_cancellation_is_accepted_and_the_outcome_follows(call: Caller, agents: Agents) -> None:
    asked = await call("POST", REQUESTS, json={"content": "hi"})
    location = asked.headers["location"]
    for _ in range(2):
        answer = await call("DELETE", location)
        assert answer.status_code == 202
        assert answer.headers["location"] == f"{location}/status"
        assert answer.json()["status"] == "accepted"
    await agents.bus.publish(ended(accepted(asked), failed(FailureReason.CANCELLED_BY_CALLER)))
    late = await call("DELETE", location)
    assert (late.status_code, late.json()["status"]) == (202, "cancelled")


@pytest.mark.parametrize(
    ("method", "tail"), [("GET", ""), ("GET", "/status"), ("GET", "/result"), ("GET", "?wait=20"), ("DELETE", "")]
)
async def test_requests_of_others_are_unknown(call: Caller, method: str, tail: str) -> None:
    asked = await call("POST", REQUESTS, json={"content": "hi"})
    location = asked.headers["location"]
    for stranger in (call.another(), call.another(tenant="other")):
        async with asyncio.timeout(10):
            answer = await stranger(method, f"{location}{tail}")
        problem(answer, 404, "unknown-request")
    assert (await call("GET", location)).json()["status"] == "accepted"
    problem(await call(method, f"{REQUESTS}/{new_id()}{tail}"), 404, "unknown-request")
    problem(await call(method, f"{REQUESTS}/nonsense{tail}"), 422, "invalid-parameter")


async def test_list_pages_through_all_of_the_callers_requests_newest_first(call: Caller) -> None:
    mine = [(await call("POST", REQUESTS, json={"content": str(n)})).json()["request_id"] for n in range(7)]
    await call.another()("POST", REQUESTS, json={"content": "not mine"})
    found, path, pages = list[str](), f"{REQUESTS}?limit=3", 0
    while path:
        answer = await call("GET", path)
        assert answer.status_code == 200
        found += [one["request_id"] for one in answer.json()["requests"]]
        link = answer.headers.get("link", "")
        path = link.partition("<")[2].partition(">")[0]
        assert not link or link.endswith('; rel="next"')
        pages += 1
    assert found == mine[::-1]
    assert pages == 3


async def test_list_of_one_session_has_only_its_requests(call: Caller) -> None:
    session = (await call("POST", REQUESTS, json={"content": "0"})).json()["session_id"]
    await call("POST", REQUESTS, json={"content": "elsewhere"})
    for n in range(3):
        await call("POST", REQUESTS, json={"content": str(n), "session_id": session})
    first = await call("GET", f"{REQUESTS}?limit=2&session_id={session}")
    path = first.headers["link"].partition("<")[2].partition(">")[0]
    second = await call("GET", path)
    turns = [one["turn"] for answer in (first, second) for one in answer.json()["requests"]]
    assert turns == [4, 3, 2, 1]
    assert (await call.another()("GET", f"{REQUESTS}?session_id={session}")).json() == {"requests": []}


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "before=x", "session_id=x", "before=%00"])
async def test_malformed_parameter_is_refused(call: Caller, query: str) -> None:
    problem(await call("GET", f"{REQUESTS}?{query}"), 422, "invalid-parameter")


async def test_ends_are_shown_only_to_a_service_and_only_of_its_tenant(call: Caller, agents: Agents) -> None:
    asked = [await call("POST", REQUESTS, json={"content": str(n)}) for n in range(3)]
    ids = [one.json()["request_id"] for one in asked]
    await agents.answer(asked[1], "One.")
    body = {"request_ids": [*ids, str(new_id())]}
    problem(await call("POST", "/internal/ended", json=body), 403, "forbidden")
    scopes = frozenset({"service:ended"})
    gateway = Caller(call.app, NAME, call.principal.model_copy(update={"subject": "api-gateway", "scopes": scopes}))
    answer = await gateway("POST", "/internal/ended", json=body)
    assert answer.status_code == 200
    assert [one["request_id"] for one in answer.json()["requests"]] == [ids[1]]
    other = Caller(call.app, NAME, gateway.principal.model_copy(update={"tenant": "other"}))
    assert (await other("POST", "/internal/ended", json=body)).json() == {"requests": []}
    for count in (0, 1001):
        wrong = {"request_ids": [str(new_id()) for _ in range(count)]}
        problem(await gateway("POST", "/internal/ended", json=wrong), 422, "invalid-body")
    problem(await call.raw("POST", "/internal/ended", json=body), 401, "no-identity")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ""),
        ("GET", ""),
        ("GET", "/{id}"),
        ("GET", "/{id}/status"),
        ("GET", "/{id}/result"),
        ("DELETE", "/{id}"),
    ],
)
async def test_credential_without_the_scope_is_refused(call: Caller, method: str, path: str) -> None:
    bare = Caller(call.app, NAME, call.principal.model_copy(update={"scopes": frozenset({"sessions"})}))
    answer = await bare(
        method, REQUESTS + path.format(id=new_id()), json={"content": "hi"} if method == "POST" else None
    )
    problem(answer, 403, "forbidden")


async def test_unknown_path_and_wrong_method_are_problems(call: Caller) -> None:
    problem(await call("GET", "/api/v1/nothing"), 404, "not-found")
    answer = await call("PUT", REQUESTS, json={})
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"]


async def test_service_that_cannot_reach_its_database_says_so_and_stays_alive() -> None:
    settings = Settings(
        mode=Mode.DEV,
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/nothing"),
        bus_url="memory://",
        redis_url=SecretStr("memory://"),
    )
    async with (
        open_redis("memory://") as redis,
        open_app(settings, MemoryBus(), redis, trusted(NAME)) as unfortunate,
    ):
        call = Caller(unfortunate, NAME)
        answer = await call("POST", REQUESTS, json={"content": "hi"})
        assert "send it again" in problem(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "1"
        problem(await call.raw("GET", "/readyz"), 503, "unavailable")
        assert (await call.raw("GET", "/livez")).status_code == 200


async def follows(agents: Agents, call: Caller, body: dict[str, object]) -> tuple[str, int | None]:
    """Return the id of a new request and the turn that its event says it follows."""
    answer = await call("POST", REQUESTS, json=body)
    assert answer.status_code == 202, answer.text
    request_id = answer.json()["request_id"]
    event = await agents.received[f"{request_id} {REQUEST_CREATED.name}"]
    return request_id, RequestCreated.model_validate_json(event.data).after_turn


async def test_request_in_the_place_of_another_follows_what_that_one_follows(call: Caller, agents: Agents) -> None:
    first = (await call("POST", REQUESTS, json={"content": "one"})).json()
    session = {"session_id": first["session_id"]}
    second, plain = await follows(agents, call, {"content": "two", **session})
    assert plain is None
    again, place = await follows(agents, call, {"content": "two", "instead_of": second, **session})
    assert place == 1
    _, place = await follows(agents, call, {"content": "other", "instead_of": again, **session})
    assert place == 1
    _, place = await follows(agents, call, {"content": "edited", "instead_of": first["request_id"], **session})
    assert place == 0
    _, place = await follows(agents, call, {"content": "on", "after": second, **session})
    assert place == 2


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"instead_of": NOTHING, "session_id": NOTHING}, 404, "unknown-request"),
        ({"after": NOTHING, "session_id": NOTHING}, 404, "unknown-request"),
        ({"after": NOTHING}, 422, "invalid-body"),
        ({"after": NOTHING, "instead_of": NOTHING, "session_id": NOTHING}, 422, "invalid-body"),
    ],
)
async def test_place_that_is_not_the_callers_is_refused(
    call: Caller, body: dict[str, str], status: int, slug: str
) -> None:
    problem(await call("POST", REQUESTS, json={"content": "hi", **body}), status, slug)


async def test_place_in_another_session_or_of_another_person_is_refused(call: Caller) -> None:
    mine, other = [(await call("POST", REQUESTS, json={"content": "hi"})).json() for _ in range(2)]
    body = {"content": "hi", "instead_of": mine["request_id"]}
    wrong = await call("POST", REQUESTS, json={**body, "session_id": other["session_id"]})
    problem(wrong, 404, "unknown-request")
    stranger = await call.another()("POST", REQUESTS, json={**body, "session_id": mine["session_id"]})
    problem(stranger, 404, "unknown-request")

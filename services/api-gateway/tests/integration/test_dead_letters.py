"""Dead letters of all services through the gateway: permission to see them, replays and discards.

The fault is real: agent-service's table refuses one content until its constraint is dropped.
"""

import asyncio
from base64 import b64decode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import httpx
import pytest
import pytest_asyncio

from shared_clients.bus.port import Message
from shared_models.catalog import REQUEST_CANCELLED, REQUEST_CREATED, RUN_CHANGED
from shared_models.dead_letters import MOST, OPERATE, OPERATE_FLEET, READ_CONTENT, LetterFilter, ReplayedBatch
from shared_models.envelope import EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import Principal, RequestCancelled, RunChanged, Status
from tests.problems import problem
from tests.simulators.calling import Caller
from tests.simulators.house import House, person, signed_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

LETTERS = "/api/v1/dead-letters"
DEV = frozenset({"requests", "sessions", OPERATE, OPERATE_FLEET, READ_CONTENT})


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def no_letters(house: House) -> AsyncGenerator[None]:
    yield
    await sql(house, "DELETE FROM agent_service.inbox WHERE state <> 'done'")
    await sql(house, "DELETE FROM request_manager.inbox WHERE state <> 'done'")


async def sql(house: House, statement: str) -> str:
    """Run a statement, and return Postgres' command tag, such as `DELETE 3`."""
    url = house.where["database_url"].get_secret_value().replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.execute(statement))
    finally:
        await connection.close()


@asynccontextmanager
async def refusing_poison(house: House) -> AsyncGenerator[None]:
    """Make agent-service's table refuse one content inside the block."""
    await sql(house, "ALTER TABLE agent_service.runs ADD CONSTRAINT no_poison CHECK (content <> 'poison') NOT VALID")
    try:
        yield
    finally:
        await sql(house, "ALTER TABLE agent_service.runs DROP CONSTRAINT no_poison")


async def ask_poison(client: httpx.AsyncClient) -> dict[str, str]:
    """Send a request whose event dies in agent-service, and return the failed request."""
    answer = await client.post("/api/v1/requests", json={"content": "poison"}, headers={"Prefer": "wait=10"})
    view: dict[str, str] = answer.json()
    assert (answer.status_code, view["status"]) == (200, "failed")
    return view


async def letters(client: httpx.AsyncClient, query: str = "") -> list[dict[str, str]]:
    answer = await client.get(f"{LETTERS}?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, str]] = answer.json()["letters"]
    return found


async def letter_of(client: httpx.AsyncClient, request_id: str) -> str:
    [letter] = [one for one in await letters(client) if one["correlation_id"] == request_id]
    return letter["id"]


def malformed() -> Message:
    return Message(REQUEST_CREATED.topic, "k", {"type": REQUEST_CREATED.name, "id": str(new_id())}, b"{", "test")


async def publish_truncated(house: House, tenant: str = "default") -> UUID:
    """Publish an event with truncated data, which dies in request-manager; return its request id."""
    request_id = new_id()
    context = EventContext.of_request(request_id, new_id(), tenant, 1, datetime.now(UTC))
    sent = new_event("agent-service", RUN_CHANGED, RunChanged(status=Status.RUNNING, epoch=1), context)
    await house.bus.publish(Message(RUN_CHANGED.topic, sent.partitionkey, sent.attributes(), b"{", "test"))
    return request_id


async def test_replayed_dead_request_completes_as_a_new_request_once_the_fault_is_gone(
    house: House, client: httpx.AsyncClient
) -> None:
    async with refusing_poison(house):
        old = await ask_poison(client)
        letter = await letter_of(client, old["request_id"])
        first = await client.post(f"{LETTERS}/{letter}/replay")
        assert first.status_code == 200, first.text
        second = first.json()["request_id"]
        view = (await client.get(f"/api/v1/requests/{second}?wait=10")).json()
        assert (view["status"], view["retry_of"]) == ("failed", old["request_id"])
    again = await client.post(f"{LETTERS}/{letter}/replay")
    assert again.json() == first.json(), "twice is the same as once"
    third = (await client.post(f"{LETTERS}/{await letter_of(client, second)}/replay")).json()["request_id"]
    view = (await client.get(f"/api/v1/requests/{third}?wait=10")).json()
    assert (view["status"], view["retry_of"], view["turn"]) == ("completed", second, 3)
    assert view["response"]["content"] == "You said poison."
    assert view["session_id"] == old["session_id"]
    unchanged = (await client.get(f"/api/v1/requests/{old['request_id']}")).json()
    assert unchanged["status"] == "failed", "the old request keeps its end"
    assert await letters(client) == []


async def test_replay_that_broke_off_continues_with_the_same_new_request(
    house: House, client: httpx.AsyncClient
) -> None:
    async with refusing_poison(house):
        old = await ask_poison(client)
        letter = await letter_of(client, old["request_id"])
    developer = Principal(
        issuer="flotilla-dev", subject="developer", tenant="default", credential="dev-key", channel="api", scopes=DEV
    )
    agents = Caller(house.services["agent-service"], "agent-service", developer)
    requests = Caller(house.services["request-manager"], "request-manager", developer)
    asks = await agents("POST", f"/internal/dead-letters/{letter}/replay", json={})
    assert asks.json() == {"id": letter, "outcome": "needs_request", "request_id": old["request_id"]}
    begun = await requests("POST", "/internal/retries", json={"request_id": old["request_id"]})
    assert [one["id"] for one in await letters(client)] == [letter], "the gateway died here"
    replayed = await client.post(f"{LETTERS}/{letter}/replay")
    assert replayed.json() == {"id": letter, "outcome": "replayed", "request_id": begun.json()["request_id"]}
    found = (await client.get(f"/api/v1/requests?session_id={old['session_id']}")).json()["requests"]
    assert len(found) == 2


async def test_batch_replays_what_it_can_and_gives_a_reason_for_the_rest(
    house: House, client: httpx.AsyncClient
) -> None:
    async with refusing_poison(house):
        dead = [await ask_poison(client) for _ in range(3)]
        await house.bus.publish(malformed())
        await publish_truncated(house)
    [hopeless] = [one for one in await letters(client) if one["malformed"]]
    batches: list[ReplayedBatch] = []
    while not batches or batches[-1].next is not None:
        body = LetterFilter(limit=2, before=batches[-1].next if batches else None)
        answer = await client.post(f"{LETTERS}/replay", json=body.model_dump(mode="json", exclude_none=True))
        assert answer.status_code == 200, answer.text
        batches.append(ReplayedBatch.model_validate_json(answer.content))
        assert len(batches) < 9, "a batch never comes back to what it has seen"
    assert sum(batch.replayed for batch in batches) == 4
    [refused] = [one for batch in batches for one in batch.refused]
    assert refused.id == hopeless["id"]
    assert "missing or malformed attributes" in refused.detail
    new = [one for batch in batches for one in batch.requests]
    views = [(await client.get(f"/api/v1/requests/{one}?wait=10")).json() for one in new]
    assert {view["status"] for view in views} == {"completed"}
    assert {view["retry_of"] for view in views} == {one["request_id"] for one in dead}
    waits = {one["id"]: one["state"] for one in [*await letters(client), *await letters(client, "state=parked")]}
    assert waits.pop(hopeless["id"]) == "dead"
    assert len(waits) <= 1, "the truncated event dies again later"


async def test_list_has_the_letters_of_all_services_by_time_of_death_in_pages(
    house: House, client: httpx.AsyncClient
) -> None:
    async with refusing_poison(house):
        first = (await ask_poison(client))["request_id"]
        second = str(await publish_truncated(house))
        third = (await ask_poison(client))["request_id"]
        fourth = str(await publish_truncated(house))
    seen, query = [], "limit=3"
    while query:
        page = (await client.get(f"{LETTERS}?{query}")).json()
        seen += [(one["correlation_id"], one["service"]) for one in page["letters"]]
        query = f"limit=3&before={page['next']}" if "next" in page else ""
    keepers = "request-manager", "agent-service"
    assert seen == list(zip((fourth, third, second, first), keepers * 2, strict=True))
    of_requests = await letters(client, "service=request-manager")
    assert [one["correlation_id"] for one in of_requests] == [fourth, second]
    of_type = await letters(client, f"type={REQUEST_CREATED.name}&since={of_requests[1]['died_at']}")
    assert [one["correlation_id"] for one in of_type] == [third]


async def test_letter_is_read_with_its_bytes_and_discarded_with_a_reason(
    house: House, client: httpx.AsyncClient
) -> None:
    async with refusing_poison(house):
        old = await ask_poison(client)
    letter = await letter_of(client, old["request_id"])
    shown = (await client.get(f"{LETTERS}/{letter}")).json()
    assert "content" not in shown
    assert shown["reason"]
    read = (await client.get(f"{LETTERS}/{letter}?content=true")).json()["content"]
    assert b'"content":"poison"' in b64decode(read["data_base64"])
    assert read["attributes"]["correlationid"] == old["request_id"]
    for reason in ("", " ", "x" * 501):
        problem(await client.post(f"{LETTERS}/{letter}/discard", json={"reason": reason}), 422, "invalid-body")
    problem(await client.post(f"{LETTERS}/{letter}/discard", json={}), 422, "invalid-body")
    done = await client.post(f"{LETTERS}/{letter}/discard", json={"reason": "we know"})
    assert done.json() == {"id": letter, "outcome": "discarded"}
    detail = problem(await client.post(f"{LETTERS}/{letter}/replay"), 409, "not-dead")
    assert "discarded" in detail
    assert "we know" in detail
    problem(await client.get(f"{LETTERS}/{letter}"), 404, "unknown-dead-letter")


def every_call(letter: str) -> list[tuple[str, str, dict[str, str] | None]]:
    return [
        ("GET", LETTERS, None),
        ("GET", f"{LETTERS}/{letter}", None),
        ("GET", f"{LETTERS}/{letter}?content=true", None),
        ("POST", f"{LETTERS}/{letter}/replay", None),
        ("POST", f"{LETTERS}/replay", {}),
        ("POST", f"{LETTERS}/{letter}/discard", {"reason": "mine now"}),
    ]


async def test_credential_without_the_scope_is_refused_everywhere(house: House, client: httpx.AsyncClient) -> None:
    await publish_truncated(house)
    [letter] = await letters(client)
    async with signed_in(house, person("default", "requests", "sessions", READ_CONTENT)) as caller:
        for method, path, body in every_call(letter["id"]):
            assert "operate" in problem(await caller.request(method, path, json=body), 403, "forbidden")
    async with signed_in(house, person("default", OPERATE)) as caller:
        assert len(await letters(caller)) == 1
        detail = problem(await caller.get(f"{LETTERS}/{letter['id']}?content=true"), 403, "forbidden")
        assert "content:read" in detail
    assert len(await letters(client)) == 1


async def test_services_check_the_scope_themselves(house: House) -> None:
    for name in ("agent-service", "request-manager"):
        call = Caller(house.services[name], name, person("default", "requests", "sessions"))
        letter = f"{name}.in.{'0' * 32}"
        for method, path in (
            ("POST", "/internal/dead-letters/list"),
            ("GET", f"/internal/dead-letters/{letter}"),
            ("GET", f"/internal/dead-letters/{letter}/content"),
            ("POST", f"/internal/dead-letters/{letter}/replay"),
            ("POST", f"/internal/dead-letters/{letter}/discard"),
        ):
            assert (await call(method, path, json={})).status_code == 403


async def test_operator_of_another_tenant_sees_no_letter(house: House, client: httpx.AsyncClient) -> None:
    await publish_truncated(house)
    [letter] = await letters(client)
    async with signed_in(house, person("globex", OPERATE, OPERATE_FLEET, READ_CONTENT)) as caller:
        for method, path, body in every_call(letter["id"]):
            answer = await caller.request(method, path, json=body)
            if letter["id"] in path:
                problem(answer, 404, "unknown-dead-letter")
            else:
                assert not answer.json().get("letters")
                assert not answer.json().get("replayed")
    assert await letters(client) == [letter]


async def test_letter_without_a_tenant_is_seen_by_operators_of_the_fleet_alone(
    house: House, client: httpx.AsyncClient
) -> None:
    await house.bus.publish(malformed())
    [letter] = await letters(client)
    assert letter["tenant"] == ""
    assert letter["malformed"]
    async with signed_in(house, person("default", OPERATE)) as caller:
        assert await letters(caller) == []
        problem(
            await caller.post(f"{LETTERS}/{letter['id']}/discard", json={"reason": "x"}), 404, "unknown-dead-letter"
        )
    problem(await client.post(f"{LETTERS}/{letter['id']}/replay"), 409, "not-replayable")


async def test_request_that_has_not_failed_is_not_replayed(house: House, client: httpx.AsyncClient) -> None:
    async with refusing_poison(house):
        old = await ask_poison(client)
    letter = await letter_of(client, old["request_id"])
    await sql(
        house, f"UPDATE request_manager.requests SET status = 'cancelled' WHERE request_id = '{old['request_id']}'"
    )
    detail = problem(await client.post(f"{LETTERS}/{letter}/replay"), 409, "not-replayable")
    assert "is cancelled" in detail
    assert len(await letters(client)) == 1


async def test_dead_cancellation_is_replayed_by_its_consumer(house: House, client: httpx.AsyncClient) -> None:
    await sql(house, "ALTER TABLE agent_service.cancellations ADD CONSTRAINT none CHECK (false) NOT VALID")
    request_id = new_id()
    context = EventContext.of_request(request_id, new_id(), "default", 1, datetime.now(UTC))
    cancelled = RequestCancelled(principal=person("default"))
    event = new_event("request-manager", REQUEST_CANCELLED, cancelled, context)
    await house.bus.publish(Message(REQUEST_CANCELLED.topic, "k", event.attributes(), event.data, "test"))
    await sql(house, "ALTER TABLE agent_service.cancellations DROP CONSTRAINT none")
    [letter] = await letters(client)
    assert (await client.post(f"{LETTERS}/{letter['id']}/replay")).json() == {"id": letter["id"], "outcome": "replayed"}
    async with asyncio.timeout(15):
        while await letters(client, "state=parked"):  # noqa: ASYNC110 - another loop's turn, once a second
            await asyncio.sleep(0.05)
    assert (
        await sql(house, f"SELECT 1 FROM agent_service.cancellations WHERE execution_id = '{request_id}'") == "SELECT 1"
    )
    assert await letters(client) == []


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("state=done", "/query/state"),
        ("limit=0", "/query/limit"),
        (f"limit={MOST + 1}", "/query/limit"),
        ("since=yesterday", "/query/since"),
        ("since=0.5", "/query/since"),
        ("since=2026-01-01T00:00:00", "/query/since"),
        ("before=nonsense", "/query/before"),
        ("before=2026-99-01T00:00:00Z_x", "/query/before"),
        ("mood=good", "/query/mood"),
        ("service=helpdesk", "helpdesk"),
    ],
)
async def test_invalid_filter_is_named(client: httpx.AsyncClient, query: str, named: str) -> None:
    assert named in problem(await client.get(f"{LETTERS}?{query}"), 422, "invalid-parameter")


@pytest.mark.parametrize("letter", ["nonsense", f"api-gateway.in.{'0' * 32}", f"agent-service.in.{'0' * 32}", "%0A"])
async def test_unknown_letter_is_404(client: httpx.AsyncClient, letter: str) -> None:
    for method, path, body in every_call(letter):
        if letter in path:
            problem(await client.request(method, path, json=body), 404, "unknown-dead-letter")

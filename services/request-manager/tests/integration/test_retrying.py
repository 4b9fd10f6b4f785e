"""A failed request is retried once: a new request for the same person in the same session."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
import pytest_asyncio
from fastapi import FastAPI
from pydantic import SecretStr

from durable_work.inbox import Inbox
from request_manager.app import NAME, open_app
from request_manager.domain import Accepted, NotFailed, Replayed, RetryOutcome, UnknownRequest
from request_manager.events import REACTIONS
from request_manager.queries.requests import load_view
from request_manager.settings import Settings
from request_manager.usecases.retry_request import retry_request
from service_process.settings import Mode
from shared_clients.bus.memory import MemoryBus
from shared_clients.postgres import Database
from shared_clients.redis import open_redis
from shared_models.dead_letters import OPERATE
from shared_models.ids import new_id
from shared_models.requests import RequestCreated, Status
from tests.simulators.asking import LIFETIME, Asking, ended, failed, ready, somebody
from tests.simulators.calling import Caller, trusted
from tests.simulators.rows import row, rows, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def inbox(database: Database) -> Inbox:
    return Inbox(database, NAME, REACTIONS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(database_url: str) -> AsyncGenerator[FastAPI]:
    settings = Settings(
        mode=Mode.DEV, database_url=SecretStr(database_url), bus_url="memory://", redis_url=SecretStr("memory://")
    )
    bus = MemoryBus()
    async with open_redis("memory://") as redis, open_app(settings, bus, redis, trusted(NAME)) as opened:
        yield opened
    await bus.close()


async def retry(ask: Asking, old: Accepted, tenant: str = "acme") -> RetryOutcome:
    return await retry_request(ask.database, ask.outbox, tenant, old.request_id, lifetime=LIFETIME)


async def test_failed_request_becomes_a_new_one_of_the_same_person_in_the_same_session(
    database: Database, ask: Asking, inbox: Inbox
) -> None:
    old = await ask.accepted("What time is it?")
    await inbox.consume(ended(old, failed()))
    new = await retry(ask, old)
    assert isinstance(new, Accepted)
    assert (new.session_id, new.turn) == (old.session_id, old.turn + 1)
    assert new.request_id != old.request_id
    view = await load_view(database, ask.principal, new.request_id)
    assert view is not None
    assert (view.retry_of, view.status) == (old.request_id, "accepted")
    first = await load_view(database, ask.principal, old.request_id)
    assert first is not None
    assert (first.retry_of, first.status) == (None, "failed"), "the old request is unchanged"
    outbox_row = await row(
        database, "SELECT data FROM outbox WHERE attributes->>'correlationid' = :id", id=str(new.request_id)
    )
    event = RequestCreated.model_validate_json(outbox_row["data"])
    assert (event.content, event.principal) == ("What time is it?", ask.principal)


async def test_request_is_retried_once_under_repeated_replays(database: Database, ask: Asking, inbox: Inbox) -> None:
    old = await ask.accepted()
    await inbox.consume(ended(old, failed()))
    outcomes = await asyncio.gather(*(retry(ask, old) for _ in range(5)))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Accepted"] + ["Replayed"] * 4
    [new] = {outcome.request_id for outcome in outcomes if isinstance(outcome, Accepted | Replayed)}
    await run(database, "DELETE FROM idempotency_keys")
    assert await retry(ask, old) == Replayed(new, old.session_id), "also after its key was deleted"
    assert len(await rows(database, "SELECT 1 AS one FROM requests WHERE retry_of = :old", old=old.request_id)) == 1


async def test_retry_that_fails_may_be_retried(ask: Asking, inbox: Inbox) -> None:
    old = await ask.accepted()
    for _ in range(3):
        await inbox.consume(ended(old, failed()))
        new = await retry(ask, old)
        assert isinstance(new, Accepted)
        old = new


async def test_only_failed_requests_are_retried(ask: Asking, inbox: Inbox) -> None:
    pending, answered = await ask.accepted(), await ask.accepted()
    await inbox.consume(ended(answered, ready()))
    assert await retry(ask, pending) == NotFailed(Status.ACCEPTED)
    assert await retry(ask, answered) == NotFailed(Status.COMPLETED)


async def test_other_tenants_request_is_unknown(ask: Asking, inbox: Inbox) -> None:
    old = await ask.accepted()
    await inbox.consume(ended(old, failed()))
    assert await retry(ask, old, "globex") == UnknownRequest()
    assert await retry(ask, replace(old, request_id=new_id())) == UnknownRequest()


async def test_content_longer_than_one_part_is_retried(ask: Asking, inbox: Inbox) -> None:
    old = await ask.accepted()
    await run(
        ask.database, "UPDATE requests SET content = repeat('a', 200000) WHERE request_id = :id", id=old.request_id
    )
    await inbox.consume(ended(old, failed()))
    assert isinstance(await retry(ask, old), Accepted)


async def test_callers_key_never_stands_in_for_a_retry(ask: Asking, inbox: Inbox, app: FastAPI) -> None:
    old = await ask.accepted()
    await inbox.consume(ended(old, failed()))
    call = Caller(app, NAME, ask.principal)
    key = {"Idempotency-Key": f"retry of {old.request_id}"}
    refused = await call("POST", "/api/v1/requests", json={"content": "hi"}, headers=key)
    assert refused.status_code == 400
    assert isinstance(await retry(ask, old), Accepted)


async def test_route_is_for_operators_of_the_requests_tenant(ask: Asking, inbox: Inbox, app: FastAPI) -> None:
    old = await ask.accepted()
    await inbox.consume(ended(old, failed()))
    body = {"request_id": str(old.request_id)}
    olga = somebody().model_copy(update={"scopes": frozenset({OPERATE})})
    owner, operator = Caller(app, NAME, ask.principal), Caller(app, NAME, olga)
    refused = await owner("POST", "/internal/retries", json=body)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:flotilla:problem:forbidden")
    stranger = await operator.another(tenant="globex")("POST", "/internal/retries", json=body)
    assert (stranger.status_code, stranger.json()["type"]) == (409, "urn:flotilla:problem:not-replayable")
    answers = [await operator("POST", "/internal/retries", json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    shown = await owner("GET", f"/api/v1/requests/{answers[0].json()['request_id']}")
    assert shown.json()["retry_of"] == str(old.request_id)
    again = await operator("POST", "/internal/retries", json={"request_id": answers[0].json()["request_id"]})
    assert again.status_code == 409
    assert "is accepted; only a failed" in again.json()["detail"]

"""Events of agent-service in any order and any number of times; and cancellations, which are published once."""

import asyncio
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from durable_work.inbox import Inbox
from request_manager.domain import Accepted
from request_manager.events import REACTIONS
from request_manager.queries.requests import load_view
from request_manager.usecases.cancel_request import cancel_request
from shared_clients.bus.port import Message
from shared_clients.postgres import Database
from shared_models.catalog import REQUEST_CANCELLED
from shared_models.ids import new_id
from shared_models.requests import FailureReason, RequestCancelled, RequestView, Status, settles
from tests.simulators.asking import Asking, ended, failed, ready, running, somebody
from tests.simulators.rows import row, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def inbox(database: Database) -> Inbox:
    return Inbox(database, "request-manager", REACTIONS)


async def shown(database: Database, ask: Asking, accepted: Accepted) -> RequestView:
    view = await load_view(database, ask.principal, accepted.request_id)
    assert view is not None
    return view


async def cancellations(database: Database, accepted: Accepted) -> list[dict[str, Any]]:
    found = await rows(
        database,
        "SELECT attributes, data FROM outbox WHERE key = :key AND attributes->>'type' = :type",
        key=str(accepted.session_id),
        type=REQUEST_CANCELLED.name,
    )
    return [dict(one) for one in found]


async def test_events_in_any_order_and_twice_show_the_status_that_the_table_of_states_gives(
    database: Database, ask: Asking, inbox: Inbox
) -> None:
    living = [(Status.RUNNING, 1), (Status.WAITING, 1), (Status.RUNNING, 2), (Status.WAITING, 2)]
    for order in permutations(living):
        accepted = await ask.accepted()
        expected, epoch = Status.ACCEPTED, 0
        for status, of in order:
            message = running(accepted, status, of)
            await inbox.consume(message)
            await inbox.consume(message)
            if settles(expected, epoch, status, of):
                expected, epoch = status, of
            assert (await shown(database, ask, accepted)).status is expected, order
        assert expected is Status.WAITING


@pytest.mark.parametrize("position", range(3))
async def test_end_is_shown_at_any_position_among_the_events(
    database: Database, ask: Asking, inbox: Inbox, position: int
) -> None:
    accepted, end = await ask.accepted(), ready("Noon.")
    messages = [running(accepted), running(accepted, epoch=2)]
    messages.insert(position, ended(accepted, end))
    for message in messages:
        await inbox.consume(message)
    view = await shown(database, ask, accepted)
    assert view.status is Status.COMPLETED
    assert (view.response, view.usage, view.agent, view.revision) == (end.response, end.usage, "assistant", "r1")
    assert view.completed_at == end.completed_at
    assert view.error is None


async def test_failure_is_shown_with_its_reason(database: Database, ask: Asking, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    await inbox.consume(ended(accepted, failed()))
    view = await shown(database, ask, accepted)
    assert view.status is Status.FAILED
    assert view.error is not None
    assert (view.error.reason, view.error.message) == (FailureReason.MODEL_UNAVAILABLE, "The model did not answer.")
    assert view.response is None


async def test_first_end_is_the_end(database: Database, ask: Asking, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    await inbox.consume(ended(accepted, ready("First.")))
    before = await shown(database, ask, accepted)
    for late in (ready("Second."), failed(FailureReason.CANCELLED_BY_CALLER)):
        await inbox.consume(ended(accepted, late))
    assert await shown(database, ask, accepted) == before


async def test_end_that_comes_ten_times_at_once_is_recorded_once(database: Database, ask: Asking, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    message = ended(accepted, ready())
    await asyncio.gather(*(inbox.consume(message) for _ in range(10)))
    assert (await shown(database, ask, accepted)).status is Status.COMPLETED
    found = await rows(database, "SELECT state FROM inbox WHERE id = :id", id=message.attributes["id"])
    assert found == [{"state": "done"}]


async def test_end_of_another_tenants_request_changes_nothing(database: Database, ask: Asking, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    await inbox.consume(ended(accepted, ready(), tenant="other"))
    await inbox.consume(ended(replace(accepted, request_id=new_id()), ready()))
    assert (await shown(database, ask, accepted)).status is Status.ACCEPTED


async def test_end_from_another_source_is_dead_lettered(database: Database, ask: Asking, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    message = ended(accepted, ready())
    forged = {**message.attributes, "source": "/flotilla/api-gateway"}
    await inbox.consume(Message(message.topic, message.key, forged, message.data))
    assert (await shown(database, ask, accepted)).status is Status.ACCEPTED
    kept = f"untrusted:{message.attributes['id']}"
    assert await row(database, "SELECT state, tenant FROM inbox WHERE id = :id", id=kept) == {
        "state": "dead",
        "tenant": "",
    }


async def test_cancellation_is_published_once_under_concurrent_and_repeated_calls(
    database: Database, ask: Asking
) -> None:
    accepted = await ask.accepted()
    asking = (cancel_request(database, ask.outbox, ask.principal, accepted.request_id) for _ in range(10))
    await asyncio.gather(*asking)
    await cancel_request(database, ask.outbox, ask.principal, accepted.request_id)
    [cancellation] = await cancellations(database, accepted)
    attributes = cancellation["attributes"]
    assert (attributes["correlationid"], attributes["turn"]) == (str(accepted.request_id), "1")
    assert RequestCancelled.model_validate_json(cancellation["data"]).principal == ask.principal
    assert (await shown(database, ask, accepted)).status is Status.ACCEPTED, "only agent-service decides"


async def test_cancellation_of_an_ended_request_is_not_published(database: Database, ask: Asking, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    await inbox.consume(ended(accepted, ready()))
    await cancel_request(database, ask.outbox, ask.principal, accepted.request_id)
    assert await cancellations(database, accepted) == []


async def test_cancellation_by_another_person_is_not_published(database: Database, ask: Asking) -> None:
    accepted = await ask.accepted()
    for stranger in (somebody(), ask.principal.model_copy(update={"tenant": "other"})):
        await cancel_request(database, ask.outbox, stranger, accepted.request_id)
    assert await cancellations(database, accepted) == []


async def test_cancelled_request_ends_as_agent_service_says(database: Database, ask: Asking, inbox: Inbox) -> None:
    late, early = await ask.accepted(), await ask.accepted()
    for accepted in (late, early):
        await cancel_request(database, ask.outbox, ask.principal, accepted.request_id)
    await inbox.consume(ended(late, ready("It was too late.")))
    await inbox.consume(ended(early, failed(FailureReason.CANCELLED_BY_CALLER)))
    assert (await shown(database, ask, late)).status is Status.COMPLETED
    assert (await shown(database, ask, early)).status is Status.CANCELLED

"""A silent request is published again, at growing pauses, until it has ended."""

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from durable_work.inbox import Inbox
from request_manager.domain import Accepted
from request_manager.events import REACTIONS
from request_manager.queries import reconciling
from request_manager.usecases.cancel_request import cancel_request
from request_manager.usecases.reconcile_requests import SILENCE, balance_requests, reconcile_requests
from shared_clients.postgres import Database
from shared_models.catalog import REQUEST_CANCELLED, REQUEST_CREATED
from shared_models.requests import RequestCreated
from tests.simulators.asking import Asking, ended, ready, running
from tests.simulators.rows import rows, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _empty_tables(database: Database) -> AsyncIterator[None]:
    for table in ("inquiries", "outbox", "requests", "session_turns"):
        await run(database, f"DELETE FROM {table}")
    yield


@pytest.fixture
def inbox(database: Database) -> Inbox:
    return Inbox(database, "request-manager", REACTIONS)


async def silent_for(database: Database, silence: timedelta) -> None:
    """Set all rows back by `silence`, and empty the outbox as if the bus had taken its events."""
    await run(database, "DELETE FROM outbox")
    back = "- CAST(:by AS interval)"
    set_back = f"UPDATE requests SET created_at = created_at {back}, cancel_asked_at = cancel_asked_at {back}"
    await run(database, set_back, by=silence)
    await run(database, f"UPDATE inquiries SET next_at = next_at {back}", by=silence)


async def outbox_types(database: Database) -> list[str]:
    return [one["type"] for one in await rows(database, "SELECT attributes->>'type' AS type FROM outbox ORDER BY id")]


async def accepted_long_ago(database: Database, ask: Asking) -> Accepted:
    accepted = await ask.accepted("Are you there?")
    await silent_for(database, SILENCE)
    return accepted


async def test_silent_request_is_published_again_in_its_turn(database: Database, ask: Asking) -> None:
    accepted = await accepted_long_ago(database, ask)
    assert await reconcile_requests(database, ask.outbox) == 1
    [event] = await rows(database, "SELECT attributes, data, key FROM outbox")
    assert event["key"] == str(accepted.session_id)
    attributes = event["attributes"]
    assert (attributes["type"], attributes["turn"]) == (REQUEST_CREATED.name, "1")
    assert attributes["correlationid"] == attributes["subject"] == str(accepted.request_id)
    data = RequestCreated.model_validate_json(event["data"])
    assert (data.content, data.principal) == ("Are you there?", ask.principal)


async def test_silent_request_is_published_at_growing_pauses(database: Database, ask: Asking) -> None:
    await accepted_long_ago(database, ask)
    published = []
    for _ in range(40):
        published.append(await reconcile_requests(database, ask.outbox))
        await silent_for(database, SILENCE / 2)
    times = [step for step, count in enumerate(published) if count]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 0
    assert 3 <= len(times) <= 8, times
    assert pauses[0] >= 4, "the first pause is twice the silence"
    assert pauses[-1] > pauses[0]


async def test_fresh_running_and_ended_requests_are_left_alone(database: Database, ask: Asking, inbox: Inbox) -> None:
    working, done = await ask.accepted(), await ask.accepted()
    await inbox.consume(running(working))
    await inbox.consume(ended(done, ready()))
    await silent_for(database, SILENCE)
    await ask.accepted("just now")
    assert await reconcile_requests(database, ask.outbox) == 0


async def test_running_request_whose_deadline_has_passed_is_published_again(
    database: Database, ask: Asking, inbox: Inbox
) -> None:
    accepted = await ask.accepted()
    await inbox.consume(running(accepted))
    await run(
        database,
        "UPDATE requests SET expires_at = now() - CAST(:silence AS interval) - interval '1 s'",
        silence=SILENCE,
    )
    await silent_for(database, SILENCE)
    assert await reconcile_requests(database, ask.outbox) == 1


async def test_cancellation_without_an_answer_is_published_again(database: Database, ask: Asking, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    await inbox.consume(running(accepted))
    await cancel_request(database, ask.outbox, ask.principal, accepted.request_id)
    await silent_for(database, SILENCE + timedelta(seconds=1))
    assert await reconcile_requests(database, ask.outbox) == 1
    assert await outbox_types(database) == [REQUEST_CREATED.name, REQUEST_CANCELLED.name]


async def test_nothing_is_published_again_while_the_outbox_is_stuck(database: Database, ask: Asking) -> None:
    await accepted_long_ago(database, ask)
    await ask.accepted("its event is stuck")
    await run(database, "UPDATE outbox SET created_at = created_at - interval '11 seconds'")
    assert await reconcile_requests(database, ask.outbox) == 0
    await run(database, "DELETE FROM outbox")
    assert await reconcile_requests(database, ask.outbox) == 1


async def test_inquiries_are_deleted_after_the_end(database: Database, ask: Asking, inbox: Inbox) -> None:
    accepted = await accepted_long_ago(database, ask)
    await reconcile_requests(database, ask.outbox)
    assert await reconciling.delete_settled_inquiries(database) == 0
    await inbox.consume(ended(accepted, ready()))
    assert await reconciling.delete_settled_inquiries(database) == 1


async def test_balance_adds_up_and_a_loss_is_reported(database: Database, ask: Asking, inbox: Inbox) -> None:
    first = await ask.accepted()
    for _ in range(3):
        await ask.accepted(session=first.session_id)
    await inbox.consume(ended(first, ready()))
    balance = await reconciling.load_balance(database, SILENCE)
    assert (balance.accepted, balance.terminal, balance.pending, balance.overdue) == (4, 1, 3, 0)
    with capture_logs() as quiet:
        await balance_requests(database)
    assert quiet == []
    await run(database, "DELETE FROM requests WHERE turn = 3")
    await run(database, "UPDATE requests SET expires_at = now() - interval '1 hour' WHERE turn = 4")
    with capture_logs() as loud:
        await balance_requests(database)
    assert [(line["event"], line["log_level"]) for line in loud] == [
        ("requests_unaccounted", "error"),
        ("requests_overdue", "error"),
    ]

"""Waiting for an end: the terminal frame, the durable row or the time that is up, whichever comes first."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from time import monotonic

import pytest
import pytest_asyncio

from durable_work.inbox import Inbox
from request_manager import queries
from request_manager.domain import Accepted
from request_manager.events import REACTIONS
from request_manager.usecases.await_result import Waiting, await_result, ended_runs
from run_frames import FrameReader, append_terminal
from shared_clients.postgres import Database
from shared_clients.redis import Redis, open_redis
from shared_models.frames import terminal_frame
from shared_models.ids import new_id
from shared_models.requests import RequestView, Status
from tests.simulators.asking import Asking, ended, ready, running, somebody

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis() -> AsyncGenerator[Redis]:
    async with open_redis("memory://") as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def waiting(database: Database, redis: Redis) -> AsyncGenerator[Waiting]:
    async with FrameReader(redis, partial(ended_runs, database)) as frames:
        yield Waiting(database, frames)


@pytest.fixture
def inbox(database: Database) -> Inbox:
    return Inbox(database, "request-manager", REACTIONS)


async def end_in_the_log(redis: Redis, accepted: Accepted, content: str) -> None:
    """Append a terminal frame as agent-service does; nothing is told to request-manager."""
    end = ready(content)
    view = RequestView(
        request_id=accepted.request_id,
        session_id=accepted.session_id,
        turn=accepted.turn,
        status=end.status,
        response=end.response,
        created_at=end.completed_at,
        completed_at=end.completed_at,
    )
    type_, fields = terminal_frame(view)
    await append_terminal(redis, tenant="acme", execution_id=accepted.request_id, epoch=1, type_=type_, fields=fields)


async def test_terminal_frame_ends_the_wait_before_the_row_is_settled(
    ask: Asking, waiting: Waiting, redis: Redis
) -> None:
    accepted = await ask.accepted()
    began = asyncio.create_task(await_result(waiting, ask.principal, accepted.request_id, 20))
    await end_in_the_log(redis, accepted, "Noon.")
    view = await began
    assert view is not None
    assert view.status is Status.COMPLETED
    assert view.response is not None
    assert view.response.content == "Noon."
    stored = await queries.load_view(waiting.database, "acme", f"idp|{ask.principal.subject}", accepted.request_id)
    assert stored is not None
    assert stored.status is Status.ACCEPTED, "its event has not come yet"


async def test_row_that_settles_soon_after_the_frame_is_what_is_returned(
    ask: Asking, waiting: Waiting, redis: Redis, inbox: Inbox
) -> None:
    accepted = await ask.accepted()
    began = asyncio.create_task(await_result(waiting, ask.principal, accepted.request_id, 20))
    await end_in_the_log(redis, accepted, "Noon.")
    await inbox.consume(ended(accepted, ready("Noon.")))
    view = await began
    assert view == await await_result(waiting, ask.principal, accepted.request_id, 0)


async def test_row_ends_the_wait_when_no_frame_ever_comes(ask: Asking, waiting: Waiting, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    began = asyncio.create_task(await_result(waiting, ask.principal, accepted.request_id, 20))
    await inbox.consume(running(accepted))
    await inbox.consume(ended(accepted, ready("Without Redis.")))
    view = await began
    assert view is not None
    assert view.response is not None
    assert view.response.content == "Without Redis."


async def test_time_that_is_up_returns_the_request_as_it_is(ask: Asking, waiting: Waiting, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    await inbox.consume(running(accepted))
    began = monotonic()
    view = await await_result(waiting, ask.principal, accepted.request_id, 0.3)
    assert view is not None
    assert view.status is Status.RUNNING
    assert monotonic() - began >= 0.3


async def test_request_that_has_ended_is_returned_at_once(ask: Asking, waiting: Waiting, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    await inbox.consume(ended(accepted, ready()))
    async with asyncio.timeout(5):
        view = await await_result(waiting, ask.principal, accepted.request_id, 60)
    assert view is not None
    assert view.status is Status.COMPLETED


async def test_nobody_waits_for_what_is_not_theirs(ask: Asking, waiting: Waiting) -> None:
    accepted = await ask.accepted()
    async with asyncio.timeout(5):
        assert await await_result(waiting, somebody(), accepted.request_id, 60) is None
        elsewhere = ask.principal.model_copy(update={"tenant": "other"})
        assert await await_result(waiting, elsewhere, accepted.request_id, 60) is None
        assert await await_result(waiting, ask.principal, new_id(), 60) is None


async def test_waiter_that_leaves_leaves_no_stream_behind(ask: Asking, waiting: Waiting) -> None:
    accepted = await ask.accepted()
    tasks = [asyncio.create_task(await_result(waiting, ask.principal, accepted.request_id, 60)) for _ in range(5)]
    while len(waiting.frames._followed) == 0:  # noqa: ASYNC110 - there is no event for a reader that has begun
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert waiting.frames._followed == {}

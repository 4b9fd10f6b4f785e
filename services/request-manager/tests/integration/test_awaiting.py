"""A wait for a result ends with the terminal frame, the durable row or the timeout, whichever comes first."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from time import monotonic

import pytest
import pytest_asyncio

from durable_work.inbox import Inbox
from request_manager.domain import Accepted
from request_manager.events import REACTIONS
from request_manager.queries import requests
from request_manager.usecases.await_result import await_result, ended_runs
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
async def frames(database: Database, redis: Redis) -> AsyncGenerator[FrameReader]:
    async with FrameReader(redis, partial(ended_runs, database)) as opened:
        yield opened


@pytest.fixture
def inbox(database: Database) -> Inbox:
    return Inbox(database, "request-manager", REACTIONS)


async def append_terminal_frame(redis: Redis, accepted: Accepted, content: str) -> None:
    """Append a terminal frame as agent-service does, without an event to request-manager."""
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
    event = terminal_frame(view)
    await append_terminal(redis, tenant="acme", execution_id=accepted.request_id, epoch=1, event=event)


async def test_terminal_frame_ends_the_wait_before_the_row_is_settled(
    ask: Asking, frames: FrameReader, redis: Redis
) -> None:
    accepted = await ask.accepted()
    waiting = asyncio.create_task(await_result(ask.database, frames, ask.principal, accepted.request_id, seconds=20))
    await append_terminal_frame(redis, accepted, "Noon.")
    view = await waiting
    assert view is not None
    assert view.status is Status.COMPLETED
    assert view.response is not None
    assert view.response.content == "Noon."
    stored = await requests.load_view(ask.database, ask.principal, accepted.request_id)
    assert stored is not None
    assert stored.status is Status.ACCEPTED, "its event has not come yet"


async def test_row_that_settles_soon_after_the_frame_is_returned(
    ask: Asking, frames: FrameReader, redis: Redis, inbox: Inbox
) -> None:
    accepted = await ask.accepted()
    waiting = asyncio.create_task(await_result(ask.database, frames, ask.principal, accepted.request_id, seconds=20))
    await append_terminal_frame(redis, accepted, "Noon.")
    await inbox.consume(ended(accepted, ready("Noon.")))
    view = await waiting
    assert view == await await_result(ask.database, frames, ask.principal, accepted.request_id, seconds=0)


async def test_row_ends_the_wait_when_no_frame_ever_comes(ask: Asking, frames: FrameReader, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    waiting = asyncio.create_task(await_result(ask.database, frames, ask.principal, accepted.request_id, seconds=20))
    await inbox.consume(running(accepted))
    await inbox.consume(ended(accepted, ready("Without Redis.")))
    view = await waiting
    assert view is not None
    assert view.response is not None
    assert view.response.content == "Without Redis."


async def test_timeout_returns_the_request_as_it_is(ask: Asking, frames: FrameReader, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    await inbox.consume(running(accepted))
    began = monotonic()
    view = await await_result(ask.database, frames, ask.principal, accepted.request_id, seconds=0.3)
    assert view is not None
    assert view.status is Status.RUNNING
    assert monotonic() - began >= 0.3


async def test_request_that_has_ended_is_returned_at_once(ask: Asking, frames: FrameReader, inbox: Inbox) -> None:
    accepted = await ask.accepted()
    await inbox.consume(ended(accepted, ready()))
    async with asyncio.timeout(5):
        view = await await_result(ask.database, frames, ask.principal, accepted.request_id, seconds=60)
    assert view is not None
    assert view.status is Status.COMPLETED


async def test_request_of_another_person_is_not_waited_for(ask: Asking, frames: FrameReader) -> None:
    accepted = await ask.accepted()
    async with asyncio.timeout(5):
        assert await await_result(ask.database, frames, somebody(), accepted.request_id, seconds=60) is None
        elsewhere = ask.principal.model_copy(update={"tenant": "other"})
        assert await await_result(ask.database, frames, elsewhere, accepted.request_id, seconds=60) is None
        assert await await_result(ask.database, frames, ask.principal, new_id(), seconds=60) is None


async def test_cancelled_wait_leaves_no_stream_open(ask: Asking, frames: FrameReader) -> None:
    accepted = await ask.accepted()
    tasks = [
        asyncio.create_task(await_result(ask.database, frames, ask.principal, accepted.request_id, seconds=60))
        for _ in range(5)
    ]
    while len(frames._followed) == 0:  # noqa: ASYNC110 - there is no event for a reader that has begun
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert frames._followed == {}

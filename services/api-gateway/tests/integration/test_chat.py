"""Chat through the gateway on a real socket: streams resume after every frame and release everything at their end."""

import asyncio
from collections.abc import AsyncGenerator

import httpx
import pytest
import pytest_asyncio

from api_gateway.usecases.sign_in import make_code
from shared_models.frames import Cursor
from shared_models.ids import new_id
from tests.problems import problem
from tests.simulators.asking import somebody
from tests.simulators.house import House, events, run_of
from tests.simulators.rows import rows
from tests.simulators.viewer import seen

NOTHING = "01920000-0000-7000-8000-000000000000"
"""An id that nothing has; a fresh one would give the cases another name in every run."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def stranger(house: House) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of another person, signed in with a browser."""
    code = await make_code(house.gateway.database, somebody())
    async with house.client(Origin=house.url) as client:
        (await client.post("/auth/link", json={"code": code})).raise_for_status()
        yield client


async def test_answer_is_streamed_as_it_is_made(client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat", json={"content": "hello"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["location"] == f"/chat/{run_of(answer)}"
    assert answer.text.startswith("retry: ")
    viewer = seen(events(answer.text))
    assert viewer.text == "You said hello."
    assert viewer.outcome is not None
    stored = (await client.get(f"/api/v1/requests/{run_of(answer)}/result?wait=10")).json()
    assert stored["session_id"] == answer.headers["flotilla-session-id"]
    assert stored["response"]["content"] == viewer.text


async def test_stream_resumes_after_every_frame_with_the_same_bytes(client: httpx.AsyncClient) -> None:
    first = await client.post("/chat", json={"content": "hello again"})
    path, frames = first.headers["location"], events(first.text)
    assert events((await client.get(path)).text) == frames
    for number, frame in enumerate(frames[:-1], start=1):
        again = await client.get(path, headers={"Last-Event-ID": str(frame.cursor)})
        assert again.status_code == 200
        assert events(again.text) == frames[number:]
        assert again.text.partition("\n\n")[0] == first.text.partition("\n\n")[0]
    ended = await client.get(path, headers={"Last-Event-ID": str(frames[-1].cursor)})
    assert (ended.status_code, events(ended.text)) == (200, [])


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1-1", "1-1-1", "01-1", "1 -1", "9" * 20 + "-1", "1.5-1"])
async def test_malformed_cursor_is_refused(client: httpx.AsyncClient, cursor: str) -> None:
    answer = await client.get(f"/chat/{new_id()}", headers={"Last-Event-ID": cursor})
    assert "Last-Event-ID" in problem(answer, 400, "bad-header")


@pytest.mark.parametrize("cursor", ["2-0", "7-3", "9-0"])
async def test_id_of_another_run_starts_a_stream_over(client: httpx.AsyncClient, house: House, cursor: str) -> None:
    """The run goes on while its stream is asked for; then it has ended, and its own last id is 2-0."""
    running = (await client.post("/api/v1/requests", json={"content": "hello"})).json()["links"]["stream"]
    answer = await client.get(running, headers={"Last-Event-ID": cursor})
    frames = events(answer.text)
    assert seen(frames).text == "You said hello."
    again = events((await client.get(running, headers={"Last-Event-ID": cursor})).text)
    assert again == ([] if cursor == "2-0" else frames)


async def test_two_ids_are_refused(client: httpx.AsyncClient) -> None:
    lines = [("Last-Event-ID", "1-1"), ("Last-Event-ID", "1-2")]
    assert "1-1, 1-2" in problem(await client.get(f"/chat/{new_id()}", headers=lines), 400, "bad-header")


async def test_head_of_a_stream_ends_after_its_headers(client: httpx.AsyncClient) -> None:
    made = (await client.post("/api/v1/requests", json={"content": "hello"})).json()["links"]["stream"]
    answer = await client.head(made)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_run_of_another_person_is_not_found(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    mine = await client.post("/chat", json={"content": "a secret"})
    problem(await stranger.get(mine.headers["location"]), 404, "unknown-request")
    problem(await client.get(f"/chat/{new_id()}"), 404, "unknown-request")
    problem(await client.get("/chat/nonsense"), 422, "invalid-parameter")
    theirs = await stranger.post("/chat", json={"content": "mine"})
    assert seen(events(theirs.text)).text == "You said mine."


async def test_same_key_attaches_to_the_same_run(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "chat-1", "Prefer": "wait=20"}
    first, again = [await client.post("/chat", json={"content": "once"}, headers=key) for _ in range(2)]
    assert run_of(first) == run_of(again)
    assert events(first.text) == events(again.text)
    other = await client.post("/chat", json={"content": "twice"}, headers=key)
    problem(other, 422, "idempotency-key-reused")


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"{", 400, "invalid-json"),
        (b"{}", 422, "invalid-body"),
        (b'{"content": "hi", "session_id": "%s"}' % NOTHING.encode(), 404, "unknown-session"),
        (b'{"content": "%s"}' % (b"x" * 300_000), 413, "body-too-large"),
    ],
)
@pytest.mark.parametrize("path", ["/chat", "/api/v1/requests"])
async def test_refusal_of_request_manager_is_passed_on_unchanged(
    client: httpx.AsyncClient, path: str, body: bytes, status: int, slug: str
) -> None:
    answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    problem(answer, status, slug)
    assert answer.json()["instance"] in {path, "/api/v1/requests"}


@pytest.mark.parametrize("path", ["/chat", "/api/v1/requests"])
async def test_gateway_vouches_for_a_session_without_a_request_yet(client: httpx.AsyncClient, path: str) -> None:
    session = (await client.post("/api/v1/sessions", json={"title": "Mine"})).json()["session_id"]
    for turn in (1, 2):
        answer = await client.post(path, json={"content": "hi", "session_id": session})
        assert answer.status_code in {200, 202}, answer.text
        stored = (await client.get(answer.headers["location"].replace("/chat/", "/api/v1/requests/"))).json()
        assert (stored["session_id"], stored["turn"]) == (session, turn)


@pytest.mark.parametrize("path", ["/chat", "/api/v1/requests"])
async def test_gateway_does_not_vouch_for_a_session_of_another_person_or_a_deleted_one(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, path: str
) -> None:
    session = (await client.post("/api/v1/sessions", json={})).json()["session_id"]
    body = {"content": "hi", "session_id": session}
    problem(await stranger.post(path, json=body), 404, "unknown-session")
    await client.delete(f"/api/v1/sessions/{session}")
    problem(await client.post(path, json=body), 404, "unknown-session")


async def test_leaving_client_ends_its_follower_and_not_its_run(house: House, client: httpx.AsyncClient) -> None:
    reader = house.gateway.app.state.dependencies.frames
    async with client.stream("POST", "/chat", json={"content": "slowly"}) as answer:
        async for piece in answer.aiter_text():
            if "TEXT_MESSAGE_CONTENT" in piece:
                break
        assert len(reader._followed) == 1
    async with asyncio.timeout(5):
        while reader._followed:  # noqa: ASYNC110 - the server notices the disconnect on its own
            await asyncio.sleep(0.02)
    result = await client.get(f"/api/v1/requests/{run_of(answer)}/result?wait=20")
    assert result.json()["response"]["content"] == "one two three four five six"


async def test_two_clients_of_one_run_see_the_same_frames_from_any_cursor(client: httpx.AsyncClient) -> None:
    async with client.stream("POST", "/chat", json={"content": "slowly"}) as first:
        path = first.headers["location"]
        async for piece in first.aiter_text():
            if "TEXT_MESSAGE_CONTENT" in piece:
                break
        late, later = await asyncio.gather(client.get(path), client.get(path, headers={"Last-Event-ID": "1-2"}))
    frames = events(late.text)
    assert seen(frames).text == "one two three four five six"
    assert events(later.text) == [frame for frame in frames if frame.cursor > Cursor(1, 2)]


async def test_cancelled_run_ends_its_stream_with_the_reason(client: httpx.AsyncClient) -> None:
    text = ""
    async with client.stream("POST", "/chat", json={"content": "never"}) as answer:
        async for piece in answer.aiter_text():
            text += piece
            if "TEXT_MESSAGE_CONTENT" in piece:
                assert (await client.delete(f"/api/v1/requests/{run_of(answer)}")).status_code == 202
    viewer = seen(events(text))
    assert viewer.outcome is not None
    assert (viewer.outcome[0], viewer.outcome[1]["code"]) == ("RUN_ERROR", "cancelled_by_caller")


async def test_stream_of_a_run_without_its_log_ends_by_the_durable_row(house: House, client: httpx.AsyncClient) -> None:
    first = await client.post("/chat", json={"content": "remember"})
    await client.get(f"/api/v1/requests/{run_of(first)}/result?wait=20")
    await house.redis.commands.flushall()
    again = await client.get(first.headers["location"])
    viewer = seen(events(again.text))
    assert viewer.text == "You said remember."
    assert viewer.outcome is not None


async def test_one_event_makes_one_run(house: House, client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat", json={"content": "count me"})
    database = house.services["agent-service"].state.database
    statement = "SELECT count(*) AS runs FROM runs WHERE content = 'count me'"
    assert await rows(database, statement) == [{"runs": 1}]
    assert answer.status_code == 200

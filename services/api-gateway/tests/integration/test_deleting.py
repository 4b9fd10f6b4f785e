"""A deleted session: its requests, messages and results are unreadable in every service, from the answer on."""

import httpx
import pytest

from tests.problems import problem
from tests.simulators.house import House, events, person, signed_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

GONE = [
    *(("GET", "/api/v1/requests/{run}"), ("GET", "/api/v1/requests/{run}/status"), ("GET", "/chat/{run}")),
    *(("GET", "/api/v1/requests/{run}/result"), ("GET", "/api/v1/requests/{run}/result?wait=5")),
    *(
        ("DELETE", "/api/v1/requests/{run}"),
        ("GET", "/api/v1/sessions/{session}"),
        ("DELETE", "/api/v1/sessions/{session}"),
    ),
    *(("GET", "/api/v1/sessions/{session}/messages"), ("PATCH", "/api/v1/sessions/{session}")),
]


async def delete_after(client: httpx.AsyncClient, content: str) -> dict[str, str]:
    """Ask in a new session, delete the session, and return the ids of both."""
    async with client.stream(
        "POST", "/chat", json={"content": content}, headers={"Idempotency-Key": content.replace(" ", "-")}
    ) as asked:
        names = {"run": asked.headers["flotilla-execution-id"], "session": asked.headers["flotilla-session-id"]}
        if content == "slowly":
            assert (await client.delete(f"/api/v1/sessions/{names['session']}")).status_code == 204
            return names
        await asked.aread()
    assert (await client.delete(f"/api/v1/sessions/{names['session']}")).status_code == 204
    return names


@pytest.mark.parametrize("content", ["a secret of mine", "slowly"], ids=["ended", "running"])
async def test_everything_of_a_deleted_session_is_unreadable_everywhere(
    client: httpx.AsyncClient, content: str
) -> None:
    names = await delete_after(client, content)
    for method, path in GONE:
        answer = await client.request(method, path.format(**names), json={"title": "x"} if method == "PATCH" else None)
        expected = "unknown-request" if "{run}" in path else "unknown-session"
        if path != "/api/v1/sessions/{session}" or method != "DELETE":
            problem(answer, 404, expected)
        assert content not in answer.text
    for path in ("/api/v1/requests", f"/api/v1/requests?session_id={names['session']}", "/api/v1/sessions"):
        listed = (await client.get(path)).text
        assert names["run"] not in listed
        assert names["session"] not in listed


async def test_deleted_session_is_unknown_to_a_second_deletion(client: httpx.AsyncClient) -> None:
    names = await delete_after(client, "once")
    problem(await client.delete(f"/api/v1/sessions/{names['session']}"), 404, "unknown-session")


async def test_request_to_a_deleted_session_is_refused_and_a_replayed_one_shows_no_result(
    client: httpx.AsyncClient,
) -> None:
    names = await delete_after(client, "again")
    later = {"content": "more", "session_id": names["session"]}
    problem(await client.post("/api/v1/requests", json=later), 404, "unknown-session")
    replayed = await client.post(
        "/api/v1/requests", json={"content": "again"}, headers={"Idempotency-Key": "again", "Prefer": "wait=5"}
    )
    assert replayed.status_code == 202
    assert "You said" not in replayed.text


async def test_run_of_a_deleted_session_is_cancelled_and_its_open_stream_ends(client: httpx.AsyncClient) -> None:
    async with client.stream("POST", "/chat", json={"content": "never"}) as asked:
        session = asked.headers["flotilla-session-id"]
        assert (await client.delete(f"/api/v1/sessions/{session}")).status_code == 204
        text = (await asked.aread()).decode()
    assert events(text)[-1].type in {"RUN_ERROR", "RUN_FINISHED"}


async def test_session_of_another_person_is_not_deleted(house: House, client: httpx.AsyncClient) -> None:
    asked = await client.post("/chat", json={"content": "mine"})
    run, session = asked.headers["flotilla-execution-id"], asked.headers["flotilla-session-id"]
    for tenant in ("default", "globex"):
        async with signed_in(house, person(tenant, "requests", "sessions")) as other:
            problem(await other.delete(f"/api/v1/sessions/{session}"), 404, "unknown-session")
    assert (await client.get(f"/api/v1/requests/{run}/result")).json()["response"] == {"content": "You said mine."}

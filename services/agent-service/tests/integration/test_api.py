"""The HTTP door of sessions: CRUD, paging and messages, and only those of the caller."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio
from fastapi import FastAPI

from agent_service import api
from agent_service.app import NAME
from agent_service.domain.agents import AgentCatalog, AgentFile, AgentList
from agent_service.domain.runs import failed
from agent_service.usecases.end_run import end_run
from service_process.web import create_app
from shared_clients.identity import Verifier
from shared_clients.postgres import Database
from shared_models.agents import parse_agent
from shared_models.dead_letters import OPERATE
from shared_models.ids import new_id
from shared_models.requests import FailureReason
from tests.problems import problem
from tests.simulators.asking import somebody
from tests.simulators.calling import Caller, trusted
from tests.simulators.performing import AGENT
from tests.simulators.rows import rows, run
from tests.simulators.working import Session, Worker

NOTHING = "01920000-0000-7000-8000-000000000000"
"""An id that nothing has; a fresh one would give the cases another name in every run."""

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSIONS = "/api/v1/sessions"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(opened: Database) -> FastAPI:
    """The routes alone: no loop of the service changes the rows of the tests."""
    app = create_app(NAME, routers=[api.router, api.operations], ready=opened.ping)
    app.state.verifier = Verifier(NAME, trusted(NAME))
    app.state.database = opened
    file = AgentFile("agents/assistant-v1.yaml", 1, "", parse_agent("assistant-v1.yaml", AGENT))
    app.state.agents = AgentList.of(AgentCatalog([file], "assistant"), ())
    return app


@pytest.fixture
def call(app: FastAPI) -> Caller:
    return Caller(app, NAME)


@dataclass
class Talk:
    """A person's conversations with agents whose answers the test gives."""

    call: Caller
    worker: Worker

    async def turn(self, session: Session, number: int, content: str, answer: str) -> None:
        await self.worker.inbox.consume(session.created(number, content))
        await self.worker.end(await self.worker.claim_one(), answer)

    def session(self) -> Session:
        return Session(principal=self.call.principal)


@pytest_asyncio.fixture(loop_scope="module")
async def talk(database: Database, call: Caller) -> AsyncGenerator[Talk]:
    yield Talk(call, await Worker(database).open())


async def all_pages(call: Caller, path: str, of: str) -> list[list[str]]:
    """Follow `Link` to the end, checking that `next` says the same."""
    pages = []
    while path:
        answer = await call("GET", path)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        pages.append([str(one.get("title", one.get("id"))) for one in body[of]])
        path = answer.headers.get("link", "").partition("<")[2].partition(">")[0]
        assert (path == "") == (body["next"] is None)
    return pages


async def test_session_is_created_read_renamed_and_deleted(call: Caller) -> None:
    created = await call("POST", SESSIONS, json={"title": "  Party ", "agent": "assistant"})
    assert created.status_code == 201
    body = created.json()
    known = {"session_id", "title", "agent", "created_at", "updated_at", "active_request_id", "channel", "match"}
    assert set(body) == known
    assert (body["title"], body["agent"], body["active_request_id"]) == ("Party", "assistant", None)
    place = created.headers["location"]
    assert place == f"{SESSIONS}/{body['session_id']}"
    assert (await call("GET", place)).json() == body
    renamed = await call("PATCH", place, json={"title": "Dinner"})
    assert (renamed.status_code, renamed.json()) == (200, {**body, "title": "Dinner"})
    gone = await call("DELETE", place)
    assert (gone.status_code, gone.content) == (204, b"")
    for method, tail in (("GET", ""), ("DELETE", ""), ("GET", "/messages")):
        problem(await call(method, f"{place}{tail}"), 404, "unknown-session")
    problem(await call("PATCH", place, json={"title": "x"}), 404, "unknown-session")
    assert (await call("GET", SESSIONS)).json()["sessions"] == []


async def test_session_whose_first_request_has_not_arrived_is_deleted_where_the_gateway_vouches(talk: Talk) -> None:
    session = talk.session()
    path = f"{SESSIONS}/{session.session_id}"
    problem(await talk.call("DELETE", path), 404, "unknown-session")
    vouched = replace(talk.call, sessions=frozenset({session.session_id}))
    assert (await vouched("DELETE", path)).status_code == 204
    problem(await vouched("DELETE", path), 404, "unknown-session")
    await talk.worker.inbox.consume(session.created(1, "hello"))
    assert (await talk.call("GET", SESSIONS)).json()["sessions"] == []
    problem(await talk.call("GET", f"{path}/messages"), 404, "unknown-session")


@pytest.mark.parametrize(
    ("method", "body", "status", "slug"),
    [
        ("POST", b"{", 400, "invalid-json"),
        ("POST", b'{"title": ""}', 422, "invalid-body"),
        ("POST", b'{"title": " "}', 422, "invalid-body"),
        ("POST", b'{"title": "%s"}' % (b"x" * 201), 422, "invalid-body"),
        ("POST", b'{"agent": "Not A Name"}', 422, "invalid-body"),
        ("POST", b'{"mood": "good"}', 422, "invalid-body"),
        ("POST", b'{"title": "a\\u0000b"}', 422, "invalid-body"),
        ("PATCH", b"{}", 422, "invalid-body"),
        ("PATCH", b'{"title": null}', 422, "invalid-body"),
    ],
)
async def test_invalid_body_is_refused(call: Caller, method: str, body: bytes, status: int, slug: str) -> None:
    place = SESSIONS if method == "POST" else (await call("POST", SESSIONS, json={})).headers["location"]
    problem(await call(method, place, content=body), status, slug)


async def test_sessions_of_other_owners_are_not_found(call: Caller, talk: Talk) -> None:
    mine = talk.session()
    await talk.turn(mine, 1, "secret", "hidden")
    place = f"{SESSIONS}/{mine.session_id}"
    assert (await call("GET", place)).status_code == 200
    for stranger in (call.another(), call.another(tenant="other")):
        for method, tail in (("GET", ""), ("GET", "/messages"), ("DELETE", "")):
            problem(await stranger(method, f"{place}{tail}"), 404, "unknown-session")
        problem(await stranger("PATCH", place, json={"title": "mine now"}), 404, "unknown-session")
        assert (await stranger("GET", SESSIONS)).json() == {"sessions": [], "next": None}
    assert (await call("GET", place)).json()["title"] == "secret"
    problem(await call("GET", f"{SESSIONS}/{new_id()}"), 404, "unknown-session")
    problem(await call("GET", f"{SESSIONS}/nonsense"), 422, "invalid-parameter")


async def test_request_without_an_identity_is_refused(call: Caller) -> None:
    for method, path in (("GET", SESSIONS), ("POST", SESSIONS), ("GET", f"{SESSIONS}/{new_id()}")):
        problem(await call.raw(method, path), 401, "no-identity")


async def test_list_has_the_last_used_first_and_pages_to_its_end(call: Caller) -> None:
    for number in range(7):
        await call("POST", SESSIONS, json={"title": str(number)})
    assert await all_pages(call, f"{SESSIONS}?limit=3", "sessions") == [["6", "5", "4"], ["3", "2", "1"], ["0"]]
    assert await all_pages(call, f"{SESSIONS}?limit=7", "sessions") == [["6", "5", "4", "3", "2", "1", "0"]]


async def test_list_of_sessions_of_one_moment_leaves_none_out(call: Caller, opened: Database) -> None:
    for number in range(5):
        await call("POST", SESSIONS, json={"title": str(number)})
    moment = "UPDATE sessions SET updated_at = '2026-01-01T00:00:00+00' WHERE owner = :owner"
    await run(opened, moment, owner=f"idp|{call.principal.subject}")
    pages = await all_pages(call, f"{SESSIONS}?limit=2", "sessions")
    assert sorted(title for page in pages for title in page) == ["0", "1", "2", "3", "4"]


async def test_paging_on_repeats_nothing_and_leaves_nothing_out_that_stayed_where_it_was(
    call: Caller, talk: Talk
) -> None:
    sessions = [talk.session() for _ in range(6)]
    for number, session in enumerate(sessions):
        await talk.turn(session, 1, str(number), "ok")
    first = await call("GET", f"{SESSIONS}?limit=2")
    assert [one["title"] for one in first.json()["sessions"]] == ["5", "4"]
    await talk.turn(sessions[4], 2, "again", "ok")  # was shown, moves to the top
    await talk.turn(sessions[2], 2, "again", "ok")  # was not shown yet, moves to the top too
    following = first.headers["link"].partition("<")[2].partition(">")[0]
    assert await all_pages(call, following, "sessions") == [["3", "1"], ["0"]]
    assert (await all_pages(call, f"{SESSIONS}?limit=6", "sessions")) == [["2", "4", "5", "3", "1", "0"]]


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=201", "limit=x", "before=", "before=x", "before=_", f"before=_{NOTHING}"),
        *("before=2026-01-01T00:00:00%2B00:00_x", "before=%00"),
        f"before=0001-01-01T00:00:00%2B23:00_{NOTHING}",
        f"before=9999-12-31T23:59:59-23:00_{NOTHING}",
    ],
)
async def test_invalid_page_cursor_is_refused(call: Caller, query: str) -> None:
    problem(await call("GET", f"{SESSIONS}?{query}"), 422, "invalid-parameter")


@pytest.mark.parametrize(
    "moment", ["2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00Z", "0001-01-02", "9999-12-30"]
)
async def test_any_moment_is_a_valid_page_cursor(call: Caller, moment: str) -> None:
    answer = await call("GET", f"{SESSIONS}?before={moment}_{new_id()}")
    assert answer.status_code == 200, answer.text


async def test_running_request_shows_in_its_session(call: Caller, talk: Talk) -> None:
    session = talk.session()
    for number in (1, 2):
        await talk.worker.inbox.consume(session.created(number, "hi"))
    mine = await talk.worker.claim_one()
    shown = (await call("GET", f"{SESSIONS}/{session.session_id}")).json()
    assert shown["active_request_id"] == str(session.request(1))
    await talk.worker.end(mine)
    shown = (await call("GET", f"{SESSIONS}/{session.session_id}")).json()
    assert shown["active_request_id"] == str(session.request(2))


async def test_search_finds_titles_questions_answers_and_shows_where(call: Caller, talk: Talk) -> None:
    named, asked, answered, other = (talk.session() for _ in range(4))
    await talk.turn(named, 1, "The harbour at night", "ok")
    await talk.turn(asked, 1, "First", "ok")
    await talk.turn(asked, 2, "and the HARBOUR 100%_sure?", "ok")
    await talk.turn(answered, 1, "Where?", f"{'far away ' * 30} in the harbour, of course")
    await talk.turn(other, 1, "Something else", "ok")
    found = (await call("GET", f"{SESSIONS}?search=harbour")).json()["sessions"]
    assert {(one["title"], one["match"]) for one in found} == {
        ("The harbour at night", None),
        ("First", "and the HARBOUR 100%_sure?"),
    }
    assert [one["title"] for one in (await call("GET", f"{SESSIONS}?search=100%25_s")).json()["sessions"]] == ["First"]
    assert (await call("GET", f"{SESSIONS}?search=100%25%25")).json()["sessions"] == []
    assert (await call.another()("GET", f"{SESSIONS}?search=harbour")).json()["sessions"] == []
    problem(await call("GET", f"{SESSIONS}?search="), 422, "invalid-parameter")


async def test_list_tells_the_way_in_of_the_first_request(call: Caller, talk: Talk) -> None:
    session = talk.session()
    session.principal = call.principal.model_copy(update={"channel": "cli"})
    await talk.turn(session, 1, "hi", "ok")
    session.principal = call.principal.model_copy(update={"channel": "web"})
    await talk.turn(session, 2, "hi again", "ok")
    assert [one["channel"] for one in (await call("GET", SESSIONS)).json()["sessions"]] == ["cli"]


async def test_operator_reads_the_runs_of_the_tenant_without_their_words(call: Caller, talk: Talk) -> None:
    session = talk.session()
    for turn in (1, 2, 3):
        await talk.turn(session, turn, "a secret question", "a secret answer")
    scopes = frozenset({OPERATE})
    operator = Caller(call.app, call.service, call.another().principal.model_copy(update={"scopes": scopes}))
    first = await operator("GET", "/api/v1/runs?limit=2")
    assert "secret" not in first.text
    assert [run["turn"] for run in first.json()["runs"]] == [3, 2]
    following = first.headers["link"].partition("<")[2].partition(">")[0]
    assert [run["turn"] for run in (await operator("GET", following)).json()["runs"]] == [1]
    shown = (await operator("GET", f"/api/v1/runs/{session.request(2)}")).json()
    assert (shown["status"], shown["tries"], shown["epoch"], shown["steps"]) == ("completed", 1, 1, [])
    other = operator.principal.model_copy(update={"tenant": "other"})
    problem(
        await Caller(call.app, call.service, other)("GET", f"/api/v1/runs/{session.request(2)}"), 404, "unknown-request"
    )
    assert (await Caller(call.app, call.service, other)("GET", "/api/v1/runs")).json() == {"runs": []}
    for path in ("/api/v1/runs", f"/api/v1/runs/{session.request(2)}"):
        problem(await call("GET", path), 403, "forbidden")


async def test_title_comes_from_the_first_message_unless_it_was_given(call: Caller, talk: Talk) -> None:
    named, nameless = talk.session(), talk.session()
    created = await call("POST", SESSIONS, json={"title": "Named"})
    named.session_id = created.json()["session_id"]
    await talk.turn(named, 1, "something else", "ok")
    await talk.turn(nameless, 1, "x" * 100, "ok")
    titles = {one["session_id"]: one["title"] for one in (await call("GET", SESSIONS)).json()["sessions"]}
    assert titles == {str(named.session_id): "Named", str(nameless.session_id): "x" * 79 + "…"}


async def test_messages_are_a_question_and_an_answer_for_each_turn_and_page_back(call: Caller, talk: Talk) -> None:
    session = talk.session()
    for number in range(1, 6):
        await talk.turn(session, number, f"question {number}", f"answer {number}")
    path = f"{SESSIONS}/{session.session_id}/messages"
    latest = (await call("GET", f"{path}?limit=1")).json()["messages"]
    assert [(one["role"], one["content"], one["turn"], one["status"]) for one in latest] == [
        ("user", "question 5", 5, "completed"),
        ("assistant", "answer 5", 5, "completed"),
    ]
    assert {one["request_id"] for one in latest} == {str(session.request(5))}
    pages = await all_pages(call, f"{path}?limit=2", "messages")
    asked = {number: str(session.request(number)) for number in range(1, 6)}
    both = [[f"{asked[n]}:user", f"{asked[n]}:assistant"] for n in range(1, 6)]
    assert pages == [both[3] + both[4], both[1] + both[2], both[0]]


async def test_failure_is_listed_in_place_of_its_answer(call: Caller, talk: Talk) -> None:
    session = talk.session()
    await talk.worker.inbox.consume(session.created(1, "fails"))
    end = failed(FailureReason.MODEL_CUT)
    mine = await talk.worker.claim_one()
    async with talk.worker.database.transaction() as tx:
        await end_run(tx, talk.worker.outbox, mine, end)
    await talk.worker.inbox.consume(session.created(2, "waits"))
    messages = (await call("GET", f"{SESSIONS}/{session.session_id}/messages")).json()["messages"]
    assert [(one["content"], one["status"]) for one in messages] == [
        ("fails", "failed"),
        ("The model's answer broke off.", "failed"),
        ("waits", "accepted"),
    ]


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "before=0", "before=x", f"before={2**63}", "before=-1"])
async def test_invalid_page_of_messages_is_refused(call: Caller, query: str) -> None:
    place = (await call("POST", SESSIONS, json={})).headers["location"]
    problem(await call("GET", f"{place}/messages?{query}"), 422, "invalid-parameter")
    assert (await call("GET", f"{place}/messages?before={2**63 - 1}")).json() == {"messages": [], "next": None}


async def test_events_of_another_person_than_the_owner_change_nothing_in_a_session(talk: Talk) -> None:
    session, database = talk.session(), talk.worker.database
    await talk.turn(session, 1, "mine", "ok")
    await talk.worker.inbox.consume(session.created(2, "mine too"))
    intruder = Session(session.session_id, somebody(), dict(session.requests))
    before = await rows(database, SESSION_STATE)
    await talk.worker.inbox.consume(intruder.cancelled(2))
    await talk.worker.inbox.consume(intruder.created(3, "not mine"))
    assert await rows(database, SESSION_STATE) == before
    kept = await rows(database, "SELECT state, tenant, error FROM inbox WHERE state <> 'done'")
    assert [(one["state"], one["tenant"]) for one in kept] == [("dead", "")] * 2
    assert all("belongs to another person" in one["error"] for one in kept)
    await talk.worker.inbox.consume(session.created(3, "mine again"))
    assert await session.statuses(database) == {1: "completed", 2: "queued", 3: "queued"}


SESSION_STATE = """
    SELECT s.owner, s.updated_at, s.next_turn, s.current_run, r.turn, r.status, r.content,
           (SELECT count(*) FROM cancellations) AS cancellations, (SELECT count(*) FROM outbox) AS events
    FROM sessions s JOIN runs r ON r.session_id = s.session_id ORDER BY r.turn
"""

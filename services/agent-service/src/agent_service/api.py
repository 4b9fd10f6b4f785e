"""The HTTP door: owners use their sessions, people who may ask list the agents, and operators read runs."""

from dataclasses import dataclass
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from agent_service.domain.agents import AgentList
from agent_service.domain.history import plain
from agent_service.domain.run_reports import RunPage, RunReport
from agent_service.domain.sessions import (
    MessagePage,
    NewSession,
    PageCursor,
    SessionChange,
    SessionPage,
    SessionView,
)
from agent_service.queries import run_reports
from agent_service.queries import sessions as queries
from agent_service.usecases import manage_sessions
from service_process.web import json_body, parse_body
from shared_clients.identity import Identity, Verifier, require_scope
from shared_clients.postgres import Database
from shared_models.dead_letters import OPERATE
from shared_models.problems import Problem, Problems, unknown_agent


@dataclass(frozen=True, slots=True)
class MessagesQuery:
    """The query parameters of a page of messages."""

    limit: Annotated[int, Query(ge=1, le=200, description="The number of turns at most.")] = 100
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="Only turns before this one.")] = None
    branches: Annotated[
        Literal["current", "all"],
        Query(description="`current`: only the branch that ends with the last turn, which is what a model is sent."),
    ] = "current"


Most = Annotated[int, Query(ge=1, le=200, alias="limit", description="The number of sessions at most.")]


MostRuns = Annotated[int, Query(ge=1, le=200, alias="limit", description="The number of runs at most.")]
Search = Annotated[
    str | None,
    Query(min_length=1, max_length=200, description="Words in a title, a question, an answer or a tool's result."),
]

SCOPE = "sessions"
"""The scope that a caller's credential needs for every route of sessions."""
ASKING_SCOPE = "requests"
"""The scope of those who may ask an agent, and so may know which there are."""


async def caller_of(request: Request) -> Identity:
    verifier: Verifier = request.app.state.verifier
    return await require_scope(verifier, SCOPE)(request)


async def asking_caller(request: Request) -> Identity:
    verifier: Verifier = request.app.state.verifier
    return await require_scope(verifier, ASKING_SCOPE)(request)


def _agents(request: Request) -> AgentList:
    listed: AgentList = request.app.state.agents
    return listed


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def operator_of(request: Request) -> Identity:
    verifier: Verifier = request.app.state.verifier
    return await require_scope(verifier, OPERATE)(request)


Caller = Annotated[Identity, Depends(caller_of)]
Operator = Annotated[Identity, Depends(operator_of)]

agents = APIRouter(prefix="/api/v1/agents", tags=["agents"])
router = APIRouter(prefix="/api/v1/sessions", tags=["sessions"])
operations = APIRouter(prefix="/api/v1/runs", tags=["runs"])


@agents.get("")
async def list_agents(request: Request, caller: Annotated[Identity, Depends(asking_caller)]) -> AgentList:
    """List the agents that answer, each with its version and its model."""
    del caller
    return _agents(request)


@router.post("", status_code=201, openapi_extra=json_body(NewSession))
async def create_session(request: Request, response: Response, caller: Caller) -> SessionView:
    """Open an empty session."""
    body = await parse_body(request, NewSession)
    if body.agent is not None and body.agent not in _agents(request).names:
        raise unknown_agent(body.agent, _agents(request).names)
    session = await manage_sessions.open_session(_database(request), caller.principal, body)
    response.headers["Location"] = f"/api/v1/sessions/{session.session_id}"
    return session


@router.get("")
async def list_sessions(
    request: Request,
    caller: Caller,
    *,
    response: Response,
    most: Most = 50,
    before: str | None = None,
    search: Search = None,
) -> SessionPage:
    """List the caller's sessions, the last used first; with `search`, one page of those in which the words occur."""
    tenant, owner = caller.principal.tenant, caller.principal.person
    if search is not None:
        matching = await queries.search_sessions(_database(request), tenant, owner, words=plain(search), most=most)
        return SessionPage(sessions=matching)
    found = await queries.list_sessions(_database(request), tenant, owner, before=_cursor(before), most=most + 1)
    page = found[:most]
    next_page = str(PageCursor(page[-1].updated_at, page[-1].session_id)) if len(found) > most else None
    _link(response, "/api/v1/sessions", most, next_page)
    return SessionPage(sessions=page, next=next_page)


@router.get("/{session_id}")
async def get_session(session_id: UUID, request: Request, caller: Caller) -> SessionView:
    """Read one session."""
    return await _load_session(request, caller, session_id)


@router.patch("/{session_id}", openapi_extra=json_body(SessionChange))
async def rename_session(session_id: UUID, request: Request, caller: Caller) -> SessionView:
    """Give a session another title."""
    body = await parse_body(request, SessionChange)
    tenant, owner = caller.principal.tenant, caller.principal.person
    session = await queries.rename_session(_database(request), tenant, owner, session_id, title=body.title)
    if session is None:
        raise _unknown_session(session_id)
    return session


@router.delete("/{session_id}", status_code=204)
async def delete_session(session_id: UUID, request: Request, caller: Caller) -> None:
    """Delete a session; a request that is still sent to it is refused."""
    vouched = session_id in caller.sessions
    if not await manage_sessions.delete_session(_database(request), caller.principal, session_id, vouched=vouched):
        raise _unknown_session(session_id)


@router.get("/{session_id}/messages")
async def list_messages(
    session_id: UUID,
    request: Request,
    caller: Caller,
    *,
    response: Response,
    page: Annotated[MessagesQuery, Depends()],
) -> MessagePage:
    """Read a session's messages, oldest first; `before` pages back."""
    await _load_session(request, caller, session_id)
    tenant = caller.principal.tenant
    messages = await queries.list_messages(
        _database(request),
        tenant,
        session_id,
        before=page.before,
        most=page.limit,
        all_branches=page.branches == "all",
    )
    more = messages[0].turn > 1 if page.branches == "all" and messages else bool(messages and messages[0].after_turn)
    older = str(messages[0].turn) if more else None
    chosen = "" if page.branches == "current" else f"&branches={page.branches}"
    _link(response, f"/api/v1/sessions/{session_id}/messages", page.limit, older, chosen)
    return MessagePage(messages=messages, next=older)


@operations.get("", response_model_exclude_none=True)
async def list_runs(
    request: Request, caller: Operator, *, response: Response, most: MostRuns = 50, before: UUID | None = None
) -> RunPage:
    """List the runs of the operator's tenant without their texts, the newest first."""
    found = await run_reports.list_runs(_database(request), caller.principal.tenant, before=before, most=most + 1)
    page = found[:most]
    following = page[-1].request_id if len(found) > most else None
    _link(response, "/api/v1/runs", most, None if following is None else str(following))
    return RunPage(runs=page, next=following)


@operations.get("/{request_id}", response_model_exclude_none=True)
async def get_run(request_id: UUID, request: Request, caller: Operator) -> RunReport:
    """Read one run of the operator's tenant: its state, tries and epochs, and when each step began and ended."""
    report = await run_reports.load_report(_database(request), caller.principal.tenant, request_id)
    if report is None:
        raise Problem(Problems.UNKNOWN_REQUEST, f"There is no run {request_id} that you may see.")
    return report


async def _load_session(request: Request, caller: Identity, session_id: UUID) -> SessionView:
    principal = caller.principal
    session = await queries.load_session(_database(request), principal.tenant, principal.person, session_id)
    if session is None:
        raise _unknown_session(session_id)
    return session


def _unknown_session(session_id: UUID) -> Problem:
    return Problem(Problems.UNKNOWN_SESSION, f"There is no session {session_id} that is yours.")


def _cursor(before: str | None) -> PageCursor | None:
    if before is None:
        return None
    try:
        return PageCursor.parse(before)
    except (ValueError, OverflowError) as error:
        detail = "`before` has to be the `next` of an earlier page."
        raise Problem(Problems.INVALID_PARAMETER, detail) from error


def _link(response: Response, path: str, most: int, before: str | None, more: str = "") -> None:
    if before is not None:
        response.headers["Link"] = f'<{path}?limit={most}{more}&before={before.replace("+", "%2B")}>; rel="next"'

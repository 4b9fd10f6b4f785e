"""The HTTP door: sessions, as their owner lists, reads, renames and deletes them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from agent_service.domain.sessions import MessagePage, NewSession, SessionChange, SessionPage, SessionView
from agent_service.queries import sessions as queries
from agent_service.usecases import keep_sessions
from service_process.web import json_body, parse_body
from shared_clients.identity import Identity, Verifier, require_scope
from shared_clients.postgres import Database
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal


@dataclass(frozen=True, slots=True)
class MessagesQuery:
    """Which part of a session's messages."""

    limit: Annotated[int, Query(ge=1, le=200, description="How many turns at most.")] = 100
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="Only turns before this one.")] = None


Most = Annotated[int, Query(ge=1, le=200, alias="limit", description="How many at most.")]


SCOPE = "sessions"
"""What a caller's credential needs for every route here."""


async def caller_of(request: Request) -> Identity:
    verifier: Verifier = request.app.state.verifier
    return await require_scope(verifier, SCOPE)(request)


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


Caller = Annotated[Identity, Depends(caller_of)]

router = APIRouter(prefix="/api/v1/sessions", tags=["sessions"])


@router.post("", status_code=201, openapi_extra=json_body(NewSession))
async def create_session(request: Request, response: Response, caller: Caller) -> SessionView:
    """Open an empty session."""
    body = await parse_body(request, NewSession)
    session = await keep_sessions.open_session(_database(request), caller.principal, body)
    response.headers["Location"] = f"/api/v1/sessions/{session.session_id}"
    return session


@router.get("")
async def list_sessions(
    request: Request, caller: Caller, *, response: Response, most: Most = 50, before: str | None = None
) -> SessionPage:
    """List one's sessions, the last used first."""
    tenant, owner = _owned_by(caller.principal)
    found = await queries.list_sessions(_database(request), tenant, owner, before=_place(before), most=most + 1)
    page, more = found[:most], len(found) > most
    following = f"{page[-1].updated_at.isoformat()}_{page[-1].session_id}" if more else None
    _link(response, "/api/v1/sessions", most, following)
    return SessionPage(sessions=page, next=following)


@router.get("/{session_id}")
async def get_session(session_id: UUID, request: Request, caller: Caller) -> SessionView:
    """Read one session."""
    return _known(await queries.load_session(_database(request), *_owned_by(caller.principal), session_id), session_id)


@router.patch("/{session_id}", openapi_extra=json_body(SessionChange))
async def rename_session(session_id: UUID, request: Request, caller: Caller) -> SessionView:
    """Give a session another title."""
    body = await parse_body(request, SessionChange)
    tenant, owner = _owned_by(caller.principal)
    return _known(
        await queries.rename_session(_database(request), tenant, owner, session_id, title=body.title), session_id
    )


@router.delete("/{session_id}", status_code=204)
async def delete_session(session_id: UUID, request: Request, caller: Caller) -> None:
    """Delete a session; a request that is still sent to it is refused."""
    deleted = await keep_sessions.delete_session(_database(request), caller.principal, session_id)
    _known(deleted or None, session_id)


@router.get("/{session_id}/messages")
async def list_messages(
    session_id: UUID,
    request: Request,
    caller: Caller,
    *,
    response: Response,
    which: Annotated[MessagesQuery, Depends()],
) -> MessagePage:
    """Read a session's messages, oldest first; `before` pages back."""
    database = _database(request)
    tenant, owner = _owned_by(caller.principal)
    _known(await queries.load_session(database, tenant, owner, session_id), session_id)
    messages = await queries.list_messages(database, tenant, session_id, before=which.before, most=which.limit)
    older = str(messages[0].turn) if messages and messages[0].turn > 1 else None
    _link(response, f"/api/v1/sessions/{session_id}/messages", which.limit, older)
    return MessagePage(messages=messages, next=older)


def _owned_by(principal: Principal) -> tuple[str, str]:
    return principal.tenant, f"{principal.issuer}|{principal.subject}"


def _known[T](found: T | None, session_id: UUID) -> T:
    if found is None:
        raise Problem(Problems.UNKNOWN_SESSION, f"There is no session {session_id} that is yours.")
    return found


def _place(before: str | None) -> tuple[datetime, UUID] | None:
    if before is None:
        return None
    time, _, session_id = before.partition("_")
    try:
        return datetime.fromisoformat(time.replace(" ", "+")).astimezone(UTC), UUID(session_id)
    except (ValueError, OverflowError) as error:
        detail = "`before` has to be the `next` of an earlier page."
        raise Problem(Problems.INVALID_PARAMETER, detail) from error


def _link(response: Response, path: str, most: int, before: str | None) -> None:
    if before is not None:
        response.headers["Link"] = f'<{path}?limit={most}&before={before.replace("+", "%2B")}>; rel="next"'

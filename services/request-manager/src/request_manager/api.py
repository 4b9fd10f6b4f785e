"""The HTTP door: accept, look, wait, list, cancel."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from durable_work.outbox import Outbox
from request_manager import domain, queries
from request_manager.failpoints import Failpoint
from request_manager.usecases.accept_request import Asked, accept_request
from request_manager.usecases.await_result import Waiting, await_result
from request_manager.usecases.cancel_request import cancel_request
from request_manager.usecases.keep_room import Room
from request_manager.usecases.retry_request import retry_request
from service_process.web import json_body, parse_body
from shared_clients.failpoints import reached
from shared_clients.identity import Identity, Verifier, require_scope
from shared_clients.postgres import Database
from shared_models.dead_letters import OPERATE, Retried, RetryRequest
from shared_models.envelope import MAX_DATA
from shared_models.problems import Problem, Problems
from shared_models.requests import TERMINAL, Accepted, ClosedModel, NewRequest, Principal, RequestList, RequestView

SCOPE = "requests"
"""What a caller's credential needs for every route here."""
ENDED_SCOPE = "service:ended"
"""What a service needs to learn the ends of a tenant's requests."""
MAX_WAIT = 60.0
"""Seconds a caller may wait for a result in one call; who wants more asks again."""
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,6})\"?", re.ASCII)

Wait = Annotated[float, Query(ge=0, description=f"Wait up to this many seconds for the end; at most {MAX_WAIT:g}.")]


@dataclass(frozen=True, slots=True)
class Means:
    """What the routes need."""

    database: Database
    outbox: Outbox
    room: Room
    waiting: Waiting
    verifier: Verifier
    lifetime: timedelta


async def means_of(request: Request) -> Means:
    """Return what the routes need; async, because FastAPI would send a plain function to a thread at each call."""
    means: Means = request.app.state.means
    return means


Given = Annotated[Means, Depends(means_of)]


async def caller_of(request: Request, means: Given) -> Identity:
    return await require_scope(means.verifier, SCOPE)(request)


async def colleague_of(request: Request, means: Given) -> Identity:
    return await require_scope(means.verifier, ENDED_SCOPE)(request)


async def operator_of(request: Request, means: Given) -> Identity:
    return await require_scope(means.verifier, OPERATE)(request)


Caller = Annotated[Identity, Depends(caller_of)]
Colleague = Annotated[Identity, Depends(colleague_of)]
Operator = Annotated[Identity, Depends(operator_of)]


async def has_room(means: Given, caller: Caller) -> None:
    """Refuse, before any work, what could be accepted and not be dealt with for long."""
    means.room.check(caller.principal.tenant)


router = APIRouter(tags=["requests"])
internal = APIRouter(prefix="/internal", include_in_schema=False)


@router.post(
    "/api/v1/requests",
    status_code=202,
    response_model=Accepted,
    dependencies=[Depends(has_room)],
    openapi_extra=json_body(NewRequest),
    responses={200: {"model": RequestView, "description": "The result, for `Prefer: wait=N`."}},
)
async def create_request(request: Request, means: Given, caller: Caller) -> Response:
    """Accept a request durably; with `Prefer: wait=N`, answer with its result when that comes in time."""
    body = await parse_body(request, NewRequest)
    wait = _preferred_wait(request)
    asked = Asked(body, caller.principal, caller.sessions, _idempotency_key(request))
    outcome = await accept_request(means.database, means.outbox, asked, means.lifetime)
    reached(Failpoint.AFTER_ACCEPT_BEFORE_ANSWER)
    request_id, session_id = _ids_of(outcome, body)
    if wait is not None:
        view = await await_result(means.waiting, caller.principal, request_id, wait)
        if view is not None and view.status in TERMINAL:
            return _json(view, 200, {"Preference-Applied": f"wait={wait:g}"})
    accepted = Accepted(request_id=request_id, session_id=session_id, links=domain.links_of(request_id))
    return _json(accepted, 202, {"Location": accepted.links.self})


@router.get("/api/v1/requests")
async def list_requests(
    means: Given,
    caller: Caller,
    *,
    session_id: UUID | None = None,
    before: UUID | None = None,
    most: Annotated[int, Query(ge=1, le=200, alias="limit")] = 50,
) -> Response:
    """List one's requests, newest first."""
    tenant, owner = _owned_by(caller.principal)
    views = await queries.list_views(means.database, tenant, owner, session_id=session_id, before=before, most=most)
    headers = {}
    if len(views) == most:
        only = f"&session_id={session_id}" if session_id else ""
        headers["Link"] = f'</api/v1/requests?limit={most}{only}&before={views[-1].request_id}>; rel="next"'
    return _json(RequestList(requests=tuple(views)), 200, headers)


@router.get("/api/v1/requests/{request_id}", response_model=RequestView)
@router.get("/api/v1/requests/{request_id}/status", response_model=RequestView)
async def get_request(request_id: UUID, request: Request, means: Given, caller: Caller, *, wait: Wait = 0) -> Response:
    """Look at a request; `wait` for its end if it is still going on."""
    return _tagged(request, await _find(means, caller.principal, request_id, wait))


@router.get("/api/v1/requests/{request_id}/result", response_model=RequestView)
async def get_result(request_id: UUID, request: Request, means: Given, caller: Caller, *, wait: Wait = 0) -> Response:
    """Fetch the result: 200 once there is one, 202 with Retry-After until then."""
    view = await _find(means, caller.principal, request_id, wait)
    if view.status in TERMINAL:
        return _tagged(request, view)
    return _json(view, 202, {"Retry-After": "1", "Location": domain.links_of(request_id).result})


@router.delete("/api/v1/requests/{request_id}", status_code=202, response_model=RequestView)
async def delete_request(request_id: UUID, means: Given, caller: Caller) -> Response:
    """Ask for a request to be cancelled; the outcome follows, and is shown by its status."""
    view = await _find(means, caller.principal, request_id, 0)
    if view.status not in TERMINAL:
        await cancel_request(means.database, means.outbox, caller.principal, request_id)
        reached(Failpoint.AFTER_CANCEL_BEFORE_ANSWER)
    return _json(view, 202, {"Location": domain.links_of(request_id).status})


class EndedQuery(ClosedModel):
    """The body of `POST /internal/ended`."""

    request_ids: Annotated[tuple[UUID, ...], Field(min_length=1, max_length=1000)]


@internal.post("/ended")
async def list_ended(request: Request, means: Given, caller: Colleague) -> Response:
    """Say which of many runs have ended: one call a second for all streams that are silent."""
    body = await parse_body(request, EndedQuery)
    views = await queries.ended_views(means.database, caller.principal.tenant, body.request_ids)
    return _json(RequestList(requests=tuple(views)), 200, {})


@internal.post("/retries")
async def create_retry(request: Request, means: Given, caller: Operator) -> Response:
    """Ask a failed request again, for an operator who replays its dead letter; a second time it is the same one."""
    old = (await parse_body(request, RetryRequest)).request_id
    tenant = caller.principal.tenant
    outcome = await retry_request(means.database, means.outbox, tenant, old, lifetime=means.lifetime)
    match outcome:
        case domain.Accepted() | domain.Replayed():
            return _json(Retried(request_id=outcome.request_id), 200, {})
        case domain.NotFailed():
            detail = f"Its request {old} is {outcome.status}; only one that has failed or expired is asked again."
        case domain.UnknownRequest():
            detail = f"Its request {old} is not known here."
        case domain.KeyReused() | domain.UnknownSession() | domain.TooLarge():
            detail = f"Its request {old} cannot be accepted again: {type(outcome).__name__}."
    raise Problem(Problems.NOT_REPLAYABLE, detail)


async def _find(means: Means, principal: Principal, request_id: UUID, wait: float) -> RequestView:
    if wait > 0:
        view = await await_result(means.waiting, principal, request_id, min(wait, MAX_WAIT))
    else:
        view = await queries.load_view(means.database, *_owned_by(principal), request_id)
    if view is None:
        raise Problem(Problems.UNKNOWN_REQUEST, f"There is no request {request_id} that is yours.")
    return view


def _ids_of(outcome: domain.Outcome, body: NewRequest) -> tuple[UUID, UUID]:
    match outcome:
        case domain.Accepted() | domain.Replayed():
            return outcome.request_id, outcome.session_id
        case domain.KeyReused():
            detail = "This Idempotency-Key was used before with another body. Use a fresh key for a fresh request."
            raise Problem(Problems.IDEMPOTENCY_KEY_REUSED, detail)
        case domain.UnknownSession():
            raise Problem(Problems.UNKNOWN_SESSION, f"There is no session {body.session_id} that is yours.")
        case domain.TooLarge():
            detail = f"The request makes an event of {outcome.size} bytes; at most {MAX_DATA} are possible."
            raise Problem(Problems.BODY_TOO_LARGE, detail)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        detail = "Idempotency-Key has to be 1 to 255 visible ASCII characters without spaces."
        raise Problem(Problems.BAD_HEADER, detail)
    return key


def _preferred_wait(request: Request) -> float | None:
    """Return the seconds of `Prefer: wait=N` (RFC 7240), bounded; a preference that is not understood is ignored."""
    for preference in request.headers.getlist("prefer"):
        for part in preference.split(","):
            if (match := _WAIT.fullmatch(part.strip())) is not None:
                return min(float(match[1]), MAX_WAIT)
    return None


def _owned_by(principal: Principal) -> tuple[str, str]:
    return principal.tenant, domain.owner_of(principal)


def _tagged(request: Request, view: RequestView) -> Response:
    """Return the view, or 304 to who has it; If-None-Match compares weakly (RFC 9110), for proxies weaken tags."""
    tag = domain.tag_of(view)
    known = {given.strip().removeprefix("W/") for given in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "no-store"})
    return _json(view, 200, {"ETag": tag})


def _json(body: Accepted | RequestView | RequestList | Retried, status: int, headers: dict[str, str]) -> Response:
    content = body.model_dump_json(exclude_none=True).encode()
    return Response(content, status, {"Cache-Control": "no-store", **headers}, "application/json")

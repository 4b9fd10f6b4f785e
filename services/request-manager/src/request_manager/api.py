"""The HTTP door: accept, read, await, list and cancel requests, and internal routes for other services."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from durable_work.outbox import Outbox
from request_manager import domain
from request_manager.failpoints import Failpoint
from request_manager.queries import requests
from request_manager.usecases import delete_session as deleting
from request_manager.usecases.accept_request import accept_request
from request_manager.usecases.await_result import await_result
from request_manager.usecases.cancel_request import cancel_request
from request_manager.usecases.limit_pending import PendingLimit
from request_manager.usecases.retry_request import retry_request
from run_frames import FrameReader
from service_process.web import json_body, parse_body
from shared_clients.failpoints import reached
from shared_clients.headers import names_entity, preferred_wait
from shared_clients.identity import Identity, Verifier, require_scope
from shared_clients.postgres import Database
from shared_models.dead_letters import OPERATE, Retried, RetryRequest
from shared_models.envelope import MAX_DATA
from shared_models.problems import Problem, Problems
from shared_models.requests import TERMINAL, Accepted, ClosedModel, NewRequest, Principal, RequestList, RequestView

SCOPE = "requests"
"""The scope that every public route here needs."""
SESSIONS_SCOPE = "sessions"
"""The scope of every public route of sessions, most of which are agent-service's."""
ENDED_SCOPE = "service:ended"
"""The scope with which a service may learn which of a tenant's requests have ended."""
MAX_WAIT = 60.0
"""Seconds that one call may wait for a result; a client calls again to wait longer."""
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

Wait = Annotated[float, Query(ge=0, description=f"Wait up to this many seconds for the end; at most {MAX_WAIT:g}.")]


@dataclass(frozen=True, slots=True)
class RouteDependencies:
    """The objects that the routes share, made once by `app`."""

    database: Database
    outbox: Outbox
    frames: FrameReader
    pending_limit: PendingLimit
    verifier: Verifier
    lifetime: timedelta


async def route_dependencies(request: Request) -> RouteDependencies:
    """Return the app's dependencies; async, because FastAPI runs a plain function in a thread for each call."""
    dependencies: RouteDependencies = request.app.state.dependencies
    return dependencies


Dependencies = Annotated[RouteDependencies, Depends(route_dependencies)]


def caller_with(scope: str) -> Callable[[Request, RouteDependencies], Awaitable[Identity]]:
    """Return a dependency that verifies the caller's identity and its scope."""

    async def verified_caller(request: Request, dependencies: Dependencies) -> Identity:
        return await require_scope(dependencies.verifier, scope)(request)

    return verified_caller


Caller = Annotated[Identity, Depends(caller_with(SCOPE))]
SessionCaller = Annotated[Identity, Depends(caller_with(SESSIONS_SCOPE))]
InternalCaller = Annotated[Identity, Depends(caller_with(ENDED_SCOPE))]
Operator = Annotated[Identity, Depends(caller_with(OPERATE))]


async def check_pending_limit(dependencies: Dependencies, caller: Caller) -> None:
    """Refuse a new request, before its body is read, while too many requests are pending."""
    dependencies.pending_limit.check(caller.principal.tenant)


router = APIRouter(tags=["requests"])
internal = APIRouter(prefix="/internal", include_in_schema=False)


@router.post(
    "/api/v1/requests",
    status_code=202,
    response_model=Accepted,
    dependencies=[Depends(check_pending_limit)],
    openapi_extra=json_body(NewRequest),
    responses={200: {"model": RequestView, "description": "The result, for `Prefer: wait=N`."}},
)
async def create_request(request: Request, dependencies: Dependencies, caller: Caller) -> Response:
    """Accept a request durably; with `Prefer: wait=N`, answer with its result if it ends within N seconds."""
    body = await parse_body(request, NewRequest)
    wait = preferred_wait(request.headers.getlist("prefer"))
    idempotency_key = _idempotency_key(request)
    draft = domain.normalise(
        body,
        caller.principal,
        caller.sessions,
        idempotency_key=idempotency_key,
        lifetime=dependencies.lifetime,
        after_turn=await _after_turn(dependencies, caller.principal, body),
    )
    outcome = await accept_request(dependencies.database, dependencies.outbox, draft)
    reached(Failpoint.AFTER_ACCEPT_BEFORE_ANSWER)
    accepted = _accepted(outcome, draft.session_id)
    if wait is not None:
        view = await await_result(
            dependencies.database,
            dependencies.frames,
            caller.principal,
            accepted.request_id,
            seconds=min(wait, MAX_WAIT),
        )
        if view is not None and view.status in TERMINAL:
            return _json(view, 200, {"Preference-Applied": f"wait={min(wait, MAX_WAIT):g}"})
    return _json(accepted, 202, {"Location": accepted.links.self})


@router.get("/api/v1/requests")
async def list_requests(
    dependencies: Dependencies,
    caller: Caller,
    *,
    session_id: UUID | None = None,
    before: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """List the caller's requests, newest first."""
    views = await requests.list_views(
        dependencies.database, caller.principal, session_id=session_id, before=before, limit=limit
    )
    headers = {}
    if len(views) == limit:
        session = f"&session_id={session_id}" if session_id else ""
        headers["Link"] = f'</api/v1/requests?limit={limit}{session}&before={views[-1].request_id}>; rel="next"'
    return _json(RequestList(requests=tuple(views)), 200, headers)


@router.get("/api/v1/requests/{request_id}", response_model=RequestView)
@router.get("/api/v1/requests/{request_id}/status", response_model=RequestView)
async def get_request(
    request_id: UUID, request: Request, dependencies: Dependencies, caller: Caller, *, wait: Wait = 0
) -> Response:
    """Return a request; with `wait`, return it once it has ended or the time is over."""
    return _conditional(request, await _load(dependencies, caller.principal, request_id, wait=wait))


@router.get("/api/v1/requests/{request_id}/result", response_model=RequestView)
async def get_result(
    request_id: UUID, request: Request, dependencies: Dependencies, caller: Caller, *, wait: Wait = 0
) -> Response:
    """Return the result with 200 once the request has ended, and 202 with Retry-After until then."""
    view = await _load(dependencies, caller.principal, request_id, wait=wait)
    if view.status in TERMINAL:
        return _conditional(request, view)
    return _json(view, 202, {"Retry-After": "1", "Location": domain.links_of(request_id).result})


@router.delete("/api/v1/requests/{request_id}", status_code=202, response_model=RequestView)
async def delete_request(request_id: UUID, dependencies: Dependencies, caller: Caller) -> Response:
    """Ask for a request to be cancelled; its status shows later whether the cancellation came in time."""
    view = await _load(dependencies, caller.principal, request_id)
    if view.status not in TERMINAL:
        await cancel_request(dependencies.database, dependencies.outbox, caller.principal, request_id)
        reached(Failpoint.AFTER_CANCEL_BEFORE_ANSWER)
    return _json(view, 202, {"Location": domain.links_of(request_id).status})


@internal.delete("/sessions/{session_id}", status_code=204)
async def delete_session(session_id: UUID, dependencies: Dependencies, caller: SessionCaller) -> None:
    """Delete the requests of a caller's session, for a gateway that deletes the session."""
    if not await deleting.delete_session(dependencies.database, dependencies.outbox, caller.principal, session_id):
        raise Problem(Problems.UNKNOWN_SESSION, f"There is no session {session_id} that is yours.")


class EndedQuery(ClosedModel):
    """The body of `POST /internal/ended`."""

    request_ids: Annotated[tuple[UUID, ...], Field(min_length=1, max_length=1000)]


@internal.post("/ended")
async def list_ended(request: Request, dependencies: Dependencies, caller: InternalCaller) -> Response:
    """Return the ended ones among the given requests; each gateway asks once a second for all its silent streams."""
    body = await parse_body(request, EndedQuery)
    views = await requests.list_ended_views(dependencies.database, caller.principal.tenant, body.request_ids)
    return _json(RequestList(requests=tuple(views)), 200, {})


@internal.post("/retries")
async def create_retry(request: Request, dependencies: Dependencies, caller: Operator) -> Response:
    """Retry a failed request, for an operator who replays its dead letter; a second call returns the same retry."""
    old = (await parse_body(request, RetryRequest)).request_id
    outcome = await retry_request(
        dependencies.database, dependencies.outbox, caller.principal.tenant, old, lifetime=dependencies.lifetime
    )
    match outcome:
        case domain.Accepted() | domain.Replayed():
            return _json(Retried(request_id=outcome.request_id), 200, {})
        case domain.NotFailed():
            detail = f"The letter's request {old} is {outcome.status}; only a failed or expired request can be retried."
        case domain.UnknownRequest():
            detail = f"The letter's request {old} is not known here."
        case domain.KeyReused() | domain.UnknownSession() | domain.TooLarge():
            detail = f"The letter's request {old} cannot be accepted again: {type(outcome).__name__}."
    raise Problem(Problems.NOT_REPLAYABLE, detail)


async def _load(
    dependencies: RouteDependencies, caller: Principal, request_id: UUID, *, wait: float = 0
) -> RequestView:
    """Return one of the caller's requests, after waiting for its end where `wait` is above 0.

    Raises:
        Problem: UNKNOWN_REQUEST, where it is not the caller's or does not exist.
    """
    if wait > 0:
        view = await await_result(
            dependencies.database, dependencies.frames, caller, request_id, seconds=min(wait, MAX_WAIT)
        )
    else:
        view = await requests.load_view(dependencies.database, caller, request_id)
    if view is None:
        raise Problem(Problems.UNKNOWN_REQUEST, f"You have no request {request_id}.")
    return view


async def _after_turn(dependencies: RouteDependencies, caller: Principal, body: NewRequest) -> int | None:
    """Return the turn that a body names by one of its requests; None where it names none.

    Raises:
        Problem: UNKNOWN_REQUEST, where that request is not the caller's or belongs to another session.
    """
    if body.named_request is None:
        return None
    named = await requests.load_place(dependencies.database, caller, body.named_request)
    if named is None or named.session_id != body.session_id:
        detail = f"You have no request {body.named_request} in session {body.session_id}."
        raise Problem(Problems.UNKNOWN_REQUEST, detail)
    return domain.turn_before(body, named)


def _accepted(outcome: domain.AcceptOutcome, session_id: UUID) -> Accepted:
    """Return the body of the 202, or raise the problem that a refusal is answered with."""
    match outcome:
        case domain.Accepted() | domain.Replayed():
            return Accepted(
                request_id=outcome.request_id,
                session_id=outcome.session_id,
                links=domain.links_of(outcome.request_id),
            )
        case domain.KeyReused():
            detail = "This Idempotency-Key was used before with another body. Use a fresh key for a fresh request."
            raise Problem(Problems.IDEMPOTENCY_KEY_REUSED, detail)
        case domain.UnknownSession():
            raise Problem(Problems.UNKNOWN_SESSION, f"You have no session {session_id}.")
        case domain.TooLarge():
            detail = f"The request makes an event of {outcome.size} bytes; at most {MAX_DATA} bytes are possible."
            raise Problem(Problems.BODY_TOO_LARGE, detail)


def _idempotency_key(request: Request) -> str | None:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) > 1 or not all(_IDEMPOTENCY_KEY.fullmatch(key) for key in keys):
        detail = "Idempotency-Key has to be sent once, as 1 to 255 visible ASCII characters without spaces."
        raise Problem(Problems.BAD_HEADER, detail)
    return keys[0] if keys else None


def _conditional(request: Request, view: RequestView) -> Response:
    """Return the view, or 304 where If-None-Match names its ETag."""
    etag = domain.etag_of(view)
    if names_entity(request.headers.getlist("if-none-match"), etag):
        return Response(status_code=304, headers={"ETag": etag, "Cache-Control": "no-store"})
    return _json(view, 200, {"ETag": etag})


def _json(body: Accepted | RequestView | RequestList | Retried, status: int, headers: dict[str, str]) -> Response:
    content = body.model_dump_json(exclude_none=True).encode()
    return Response(content, status, {"Cache-Control": "no-store", **headers}, "application/json")

"""The HTTP door of the whole fleet: chat streams, signing in, and the way to the services."""

from dataclasses import dataclass
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from api_gateway.admission import Admission, asks_to_wait
from api_gateway.cookies import Browsers
from api_gateway.failpoints import Failpoint
from api_gateway.hop import ROUTES, Answer, Call, Hop
from api_gateway.refusals import known
from api_gateway.streams import event_stream, relay
from api_gateway.usecases.sign_in import make_code, sign_in
from run_frames import FrameReader
from service_process.web import json_body, parse_body
from shared_clients.errors import OutsideError
from shared_clients.failpoints import reached
from shared_clients.identity import Credentials, no_identity
from shared_clients.postgres import Database
from shared_models.frames import START, Cursor
from shared_models.problems import Problem, Problems
from shared_models.requests import Accepted, ClosedModel, NewRequest, Principal

ACCEPTING: Final = "/api/v1/requests"
METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@dataclass(frozen=True, slots=True)
class Means:
    """What the routes need."""

    database: Database
    credentials: Credentials
    browsers: Browsers
    hop: Hop
    frames: FrameReader
    admission: Admission


async def means_of(request: Request) -> Means:
    """Return what the routes need; async, because FastAPI would send a plain function to a thread at each call."""
    means: Means = request.app.state.means
    return means


Given = Annotated[Means, Depends(means_of)]


async def caller_of(request: Request, means: Given) -> Principal:
    """Return who asks, by key or by cookie; nobody unknown comes past here, and nobody who asks too often."""
    principal = await means.credentials.authenticate(request.headers)
    if principal is None:
        raise no_identity()
    known(request.scope, principal)
    means.admission.admit(principal, request.scope)
    return principal


Caller = Annotated[Principal, Depends(caller_of)]


async def stayer_of(request: Request, means: Given, caller: Caller) -> Principal:
    """Return who asks for what may take long, and is given room for it."""
    means.admission.hold(caller, request.scope)
    return caller


async def waiter_of(request: Request, means: Given, caller: Caller) -> Principal:
    """Return who asks, with room for the wait where the call asks to wait."""
    if asks_to_wait(request.scope):
        means.admission.hold(caller, request.scope)
    return caller


Stayer = Annotated[Principal, Depends(stayer_of)]
Waiter = Annotated[Principal, Depends(waiter_of)]


router = APIRouter()


@router.post("/chat", tags=["chat"], openapi_extra=json_body(NewRequest), response_class=Response)
async def chat(request: Request, means: Given, caller: Stayer) -> Response:
    """Accept a request and stream its run as AG-UI frames (server-sent events)."""
    answer = await _accept(request, means, caller, leave_out=frozenset({b"prefer"}))
    if answer.status != 202:
        return answer.response()
    accepted = Accepted.model_validate_json(answer.body)
    return _stream(request, means, caller, execution_id=accepted.request_id, session_id=accepted.session_id)


@router.get("/chat/{execution_id}", tags=["chat"], response_class=Response)
async def resume_chat(execution_id: UUID, request: Request, means: Given, caller: Stayer) -> Response:
    """Stream a run from where `Last-Event-ID` says, on any replica; the bytes are the same as the first time."""
    after = _cursor(request.headers.get("last-event-id"))
    answer = await _look(means, caller, execution_id)
    if answer.status != 200:
        return answer.response()
    return _stream(request, means, caller, execution_id=execution_id, after=after)


@router.post(ACCEPTING, include_in_schema=False)
async def create_request(request: Request, means: Given, caller: Waiter) -> Response:
    """Accept a request; see request-manager."""
    return (await _accept(request, means, caller)).response()


class Link(ClosedModel):
    """The body of `POST /auth/link`."""

    code: str


@router.post("/auth/link", status_code=204, tags=["auth"], openapi_extra=json_body(Link))
async def use_link(request: Request, means: Given) -> Response:
    """Sign a browser in with a single-use code, and give it a cookie."""
    token = await sign_in(means.database, (await parse_body(request, Link)).code)
    if token is None:
        detail = "The sign-in code was used already or is too old. Ask for a fresh link with: flotilla link"
        raise Problem(Problems.NO_IDENTITY, detail)
    response = Response(status_code=204)
    means.browsers.set_cookie(response, token)
    return response


@router.post("/auth/codes", status_code=201, tags=["auth"])
async def create_code(means: Given, caller: Caller) -> dict[str, str]:
    """Make a code that signs one browser in as oneself."""
    return {"code": await make_code(means.database, caller)}


@router.get("/auth/me", tags=["auth"])
async def get_me(caller: Caller) -> dict[str, str]:
    """Say who one is."""
    return {"subject": caller.subject, "tenant": caller.tenant}


@router.post("/auth/logout", status_code=204, tags=["auth"])
async def log_out(request: Request, means: Given, caller: Caller) -> Response:
    """End the browser's session here and now."""
    del caller
    response = Response(status_code=204)
    await means.browsers.end(request, response)
    return response


@router.api_route("/api/v1/{path:path}", methods=METHODS, include_in_schema=False)
async def forward(path: str, request: Request, means: Given, caller: Waiter) -> Response:
    """Hand a call to the service it is for."""
    del path
    full = request.scope["path"]
    service = next((name for prefix, name in ROUTES.items() if full == prefix or full.startswith(f"{prefix}/")), None)
    if service is None:
        raise Problem(Problems.NOT_FOUND, f"There is nothing at {full[:200]}.")
    return means.hop.forward(service, caller, request)


async def _accept(
    request: Request, means: Means, caller: Principal, leave_out: frozenset[bytes] = frozenset()
) -> Answer:
    """Have request-manager accept the body.

    A session that was opened with `POST /api/v1/sessions` is unknown to request-manager until its first request; then
    agent-service is asked whether it is the caller's, and the call is repeated with our word for it.
    """
    body = await request.body()
    headers = [pair for pair in request.scope["headers"] if pair[0] not in leave_out]
    call = Call("POST", ACCEPTING, body, headers=headers)
    answer = await means.hop.call("request-manager", caller, call)
    if answer.status == 404 and Problems.UNKNOWN_SESSION.value.uri.encode() in answer.body:
        session_id = NewRequest.model_validate_json(body).session_id
        known = await means.hop.call("agent-service", caller, Call("GET", f"/api/v1/sessions/{session_id}"))
        if known.status == 200 and session_id is not None:
            vouched = Call("POST", ACCEPTING, body, headers=call.headers, sessions=frozenset({session_id}))
            return await means.hop.call("request-manager", caller, vouched)
    reached(Failpoint.AFTER_ACCEPT_BEFORE_RELAY)
    return answer


async def _look(means: Means, caller: Principal, execution_id: UUID) -> Answer:
    return await means.hop.call("request-manager", caller, Call("GET", f"{ACCEPTING}/{execution_id}/status"))


def _stream(
    request: Request,
    means: Means,
    caller: Principal,
    *,
    execution_id: UUID,
    after: Cursor = START,
    session_id: UUID | None = None,
) -> Response:
    async def allowed() -> bool:
        """Ask again; about whom nobody can be asked, that one may not read, and hears why when it comes back."""
        try:
            again = await means.credentials.authenticate(request.headers)
            return again == caller and (await _look(means, caller, execution_id)).status == 200
        except (Problem, OutsideError):
            return False

    content = relay(means.frames, caller.tenant, execution_id, after, allowed=allowed)
    headers = {"Flotilla-Execution-Id": str(execution_id), "Location": f"/chat/{execution_id}"}
    return event_stream(content, headers | ({"Flotilla-Session-Id": str(session_id)} if session_id else {}))


def _cursor(last_event_id: str | None) -> Cursor:
    if last_event_id is None or last_event_id == "":
        return START
    try:
        return Cursor.parse(last_event_id)
    except ValueError as error:
        raise Problem(Problems.BAD_HEADER, f"Last-Event-ID: {error}") from error

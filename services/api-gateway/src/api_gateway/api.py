"""The gateway's own routes: chat streams, signing in, and the calls that it hands to services."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from api_gateway.admission.concurrency import SIGN_IN_PATH, ConcurrencyLimiter, run_while_connected, slot_of
from api_gateway.admission.rates import Exceeded, RateLimiter, SignInRate, rate_refusal
from api_gateway.agent_names import AgentNames
from api_gateway.browser_sessions import BrowserSessions
from api_gateway.failpoints import Failpoint
from api_gateway.hop import Answer, Call, Hop
from api_gateway.refusals import remember_caller
from api_gateway.streams import event_stream, relay
from api_gateway.usecases.sign_in import InvalidCode, OtherPerson, SignedIn, make_code, sign_in
from run_frames import FrameReader
from service_process.web import json_body, parse_body
from shared_clients.errors import OutsideError
from shared_clients.failpoints import reached
from shared_clients.headers import asks_to_wait
from shared_clients.identity import Credentials, no_identity
from shared_clients.postgres import Database
from shared_models.frames import START, Cursor
from shared_models.problems import Problem, Problems
from shared_models.requests import TERMINAL, Accepted, ClosedModel, NewRequest, Principal, RequestView
from shared_models.services import AGENT_SERVICE, REQUEST_MANAGER, routes

ACCEPTING: Final = "/api/v1/requests"
METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@dataclass(frozen=True, slots=True)
class RouteDependencies:
    """The objects that the routes use, opened once for the process."""

    database: Database
    credentials: Credentials
    browsers: BrowserSessions
    hop: Hop
    agents: AgentNames
    frames: FrameReader
    concurrency: ConcurrencyLimiter
    rates: RateLimiter
    sign_in_rate: SignInRate


async def route_dependencies(request: Request) -> RouteDependencies:
    """Return the routes' dependencies; async, because FastAPI runs a plain function in a thread at each call."""
    dependencies: RouteDependencies = request.app.state.dependencies
    return dependencies


Dependencies = Annotated[RouteDependencies, Depends(route_dependencies)]


async def identified_caller(request: Request, dependencies: Dependencies) -> Principal:
    """Return the caller, identified by an API key or by a session cookie, and count the request.

    Raises:
        Problem: NO_IDENTITY: the request has no valid credential. RATE_LIMITED or OVERLOADED: it is over a rate.
    """
    repeated = len(request.headers.getlist("authorization")) > 1
    caller = None if repeated else await dependencies.credentials.authenticate(request.headers)
    if caller is None:
        raise no_identity()
    remember_caller(request.scope, caller)
    decision = dependencies.rates.admit(caller)
    slot_of(request.scope).response_headers = dependencies.rates.headers(decision)
    if isinstance(decision, Exceeded):
        raise rate_refusal(decision)
    return caller


Caller = Annotated[Principal, Depends(identified_caller)]


async def streaming_caller(request: Request, dependencies: Dependencies, caller: Caller) -> Principal:
    """Return the caller of a stream, and count the request as one that may stay open long.

    Raises:
        Problem: TOO_MANY_OPEN or OVERLOADED: too many streams and waiting calls are open.
    """
    dependencies.concurrency.keep_open(slot_of(request.scope), caller.tenant)
    return caller


async def waiting_caller(request: Request, dependencies: Dependencies, caller: Caller) -> Principal:
    """Return the caller, and count a request that asks to wait as one that may stay open long.

    Raises:
        Problem: TOO_MANY_OPEN or OVERLOADED: too many streams and waiting calls are open.
    """
    if _asks_to_wait(request):
        dependencies.concurrency.keep_open(slot_of(request.scope), caller.tenant)
    return caller


StreamingCaller = Annotated[Principal, Depends(streaming_caller)]
WaitingCaller = Annotated[Principal, Depends(waiting_caller)]


router = APIRouter()


@router.post("/chat", tags=["chat"], openapi_extra=json_body(NewRequest), response_class=Response)
async def chat(request: Request, dependencies: Dependencies, caller: StreamingCaller) -> Response:
    """Accept a request and stream its run as AG-UI frames (server-sent events)."""
    answer = await _accept(request, dependencies, caller, leave_out=frozenset({b"prefer"}))
    if answer.status != 202:
        return answer.response()
    accepted = Accepted.model_validate_json(answer.body)
    return _stream(request, dependencies, caller, execution_id=accepted.request_id, session_id=accepted.session_id)


@router.get("/chat/{execution_id}", tags=["chat"], response_class=Response)
async def resume_chat(
    execution_id: UUID, request: Request, dependencies: Dependencies, caller: StreamingCaller
) -> Response:
    """Stream a run after the frame that `Last-Event-ID` names, on any replica, with the same bytes as before.

    An id that this run cannot have given, such as one of another run, starts the stream from the beginning.
    """
    after = _cursor(request.headers.getlist("last-event-id"))
    answer = await _read_status(dependencies, caller, execution_id)
    if answer.status != 200:
        return answer.response()
    ended = RequestView.model_validate_json(answer.body).status in TERMINAL
    if not await dependencies.frames.may_contain_cursor(caller.tenant, execution_id, after, ended=ended):
        after = START
    return _stream(request, dependencies, caller, execution_id=execution_id, after=after)


@router.post(ACCEPTING, include_in_schema=False)
async def create_request(request: Request, dependencies: Dependencies, caller: WaitingCaller) -> Response:
    """Have request-manager accept a request."""
    await request.body()
    accepting = _accept(request, dependencies, caller)
    answer = await (run_while_connected(request.receive, accepting) if _asks_to_wait(request) else accepting)
    return answer.response()


class Link(ClosedModel):
    """The body of `POST /auth/link`; `replace` confirms that another person than before is signed in."""

    code: str
    replace: bool = False


@router.post(SIGN_IN_PATH, status_code=204, tags=["auth"], openapi_extra=json_body(Link))
async def use_link(request: Request, dependencies: Dependencies) -> Response:
    """Sign a browser in with a single-use code, and give it a cookie.

    A browser that is signed in as another person gets 409 until `replace` confirms the change; the code stays valid.
    """
    dependencies.sign_in_rate.admit(request.client.host if request.client else "")
    link, earlier = await parse_body(request, Link), dependencies.browsers.token(request.headers)
    match await sign_in(dependencies.database, link.code, earlier=earlier, replace=link.replace):
        case SignedIn(token):
            dependencies.browsers.forget(earlier)
            response = Response(status_code=204)
            dependencies.browsers.set_cookie(response, token)
            return response
        case OtherPerson(signed_in, by_link):
            detail = (
                f"This browser is signed in as {_name(signed_in)}. The link would sign it in as {_name(by_link)}. "
                "Confirm the change, or stay signed in."
            )
            fault = {"pointer": "/replace", "detail": "has to be true to confirm the change"}
            raise Problem(Problems.OTHER_PERSON, detail, errors=(fault,))
        case InvalidCode():
            detail = (
                "The sign-in code in `code` is unknown, was used already, or is too old. "
                "Make a new sign-in link with the command: ./flotilla link"
            )
            raise Problem(Problems.NO_IDENTITY, detail)


def _name(person: Principal) -> str:
    return f"{person.subject[:100]} of {person.tenant}"


@router.post("/auth/codes", status_code=201, tags=["auth"])
async def create_code(dependencies: Dependencies, caller: Caller) -> dict[str, str]:
    """Make a code that signs one browser in as the caller."""
    return {"code": await make_code(dependencies.database, caller)}


@router.get("/auth/me", tags=["auth"])
async def get_me(caller: Caller) -> dict[str, str]:
    """Return the caller's subject and tenant."""
    return {"subject": caller.subject, "tenant": caller.tenant}


@router.post("/auth/logout", status_code=204, tags=["auth"])
async def log_out(request: Request, dependencies: Dependencies, caller: Caller) -> Response:
    """End the browser's session, and delete its cookie."""
    del caller
    response = Response(status_code=204)
    await dependencies.browsers.end(request, response)
    return response


@router.delete("/api/v1/sessions/{session_id}", status_code=204, include_in_schema=False)
async def delete_session(session_id: UUID, dependencies: Dependencies, caller: Caller) -> Response:
    """Have both services delete a session: first its results, then the session with its messages.

    A call that fails in between can be repeated. The results are unreadable from the first answer on.
    """
    results = Call("DELETE", f"/internal/sessions/{session_id}")
    answer = await dependencies.hop.call("request-manager", caller, results)
    if answer.status not in {204, 404}:
        return answer.response()
    known = frozenset({session_id}) if answer.status == 204 else frozenset[UUID]()
    session = Call("DELETE", f"/api/v1/sessions/{session_id}", sessions=known)
    return (await dependencies.hop.call("agent-service", caller, session)).response()


async def forward(request: Request, dependencies: Dependencies, caller: WaitingCaller) -> Response:
    """Forward a call to the service whose routes in the catalogue begin its path."""
    full = request.scope["path"]
    service = next(name for prefix, name in routes().items() if full == prefix or full.startswith(f"{prefix}/"))
    if _asks_to_wait(request):
        call = Call(request.method, full, await request.body(), request.scope["query_string"], request.scope["headers"])
        answer = await run_while_connected(request.receive, dependencies.hop.call(service, caller, call))
        return answer.response()
    return dependencies.hop.forward(service, caller, request)


for _prefix in routes():
    for _path in (_prefix, f"{_prefix}/{{path:path}}"):
        router.add_api_route(_path, forward, methods=METHODS, include_in_schema=False)


def _asks_to_wait(request: Request) -> bool:
    return asks_to_wait(request.headers.raw, request.scope["query_string"])


async def _accept(
    request: Request, dependencies: RouteDependencies, caller: Principal, leave_out: frozenset[bytes] = frozenset()
) -> Answer:
    """Have request-manager accept the body, without the headers in `leave_out`.

    A session that was opened with `POST /api/v1/sessions` is unknown to request-manager until its first request. Then
    agent-service tells whether the session is the caller's, and the gateway repeats the call and vouches for it.

    Raises:
        Problem: UNKNOWN_AGENT: the body names an agent that does not exist.
    """
    body = await request.body()
    headers = [pair for pair in request.scope["headers"] if pair[0] not in leave_out]
    await dependencies.agents.refuse_unknown(caller, body)
    answer = await dependencies.hop.call(REQUEST_MANAGER.name, caller, Call("POST", ACCEPTING, body, headers=headers))
    if answer.status == 404 and Problems.UNKNOWN_SESSION.value.uri.encode() in answer.body:
        session_id = NewRequest.model_validate_json(body).session_id
        session = await dependencies.hop.call(AGENT_SERVICE.name, caller, Call("GET", f"/api/v1/sessions/{session_id}"))
        if session.status == 200 and session_id is not None:
            vouched = Call("POST", ACCEPTING, body, headers=headers, sessions=frozenset({session_id}))
            return await dependencies.hop.call(REQUEST_MANAGER.name, caller, vouched)
    reached(Failpoint.AFTER_ACCEPT_BEFORE_RELAY)
    return answer


async def _read_status(dependencies: RouteDependencies, caller: Principal, execution_id: UUID) -> Answer:
    call = Call("GET", f"{ACCEPTING}/{execution_id}/status")
    return await dependencies.hop.call(REQUEST_MANAGER.name, caller, call)


def _stream(
    request: Request,
    dependencies: RouteDependencies,
    caller: Principal,
    *,
    execution_id: UUID,
    after: Cursor = START,
    session_id: UUID | None = None,
) -> Response:
    async def still_permitted() -> bool:
        """Check identity and ownership again; a check that fails ends the stream, and the next request says why."""
        try:
            current = await dependencies.credentials.authenticate(request.headers)
            return current == caller and (await _read_status(dependencies, caller, execution_id)).status == 200
        except (Problem, OutsideError):
            return False

    content = relay(dependencies.frames, caller.tenant, execution_id, after, still_permitted=still_permitted)
    headers = {"Flotilla-Execution-Id": str(execution_id), "Location": f"/chat/{execution_id}"}
    return event_stream(content, headers | ({"Flotilla-Session-Id": str(session_id)} if session_id else {}))


def _cursor(last_event_ids: Sequence[str]) -> Cursor:
    text = ", ".join(last_event_ids)
    if text == "":
        return START
    try:
        return Cursor.parse(text)
    except ValueError as error:
        detail = (
            f"Last-Event-ID: {error}. Send the id of a frame of this run, or leave the header out to read all frames."
        )
        raise Problem(Problems.BAD_HEADER, detail) from error

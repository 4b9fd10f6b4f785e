"""The routes for the dead letters of all services: one list of them, and one way to replay or discard each.

The gateway stores no dead letters. It replays a dead request in three calls: the letter's service names the request,
request-manager accepts a new one in its place, and the letter's service records the new request. Each call can be
repeated, so a caller whose replay broke off starts it again and gets the same result.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel

from api_gateway.api import Caller, Dependencies
from api_gateway.hop import Answer, Call, Hop
from service_process.web import json_body, parse_body
from shared_models.dead_letters import (
    OPERATE,
    DeadLetter,
    DeadLetterPage,
    Discard,
    LetterFilter,
    LetterQuery,
    Letters,
    NotReplayed,
    Replay,
    ReplayedBatch,
    Retried,
    RetryRequest,
    Settled,
    parse_letter_id,
)
from shared_models.problems import Problem, ProblemBody, Problems
from shared_models.requests import Principal
from shared_models.services import REQUEST_MANAGER, dead_letter_services

INTERNAL_PATH: Final = "/internal/dead-letters"
"""The path of dead letters in every service that has them."""
_KIND_BY_URI: Final = {kind.value.uri: kind for kind in Problems}
_JSON: Final = ((b"content-type", b"application/json"),)


class LetterList(LetterFilter):
    """The query parameters of `GET /api/v1/dead-letters`."""

    state: Letters = "dead"


async def operator(caller: Caller) -> Principal:
    """Return the caller, who has the scope for dead letters.

    Raises:
        Problem: FORBIDDEN: the credential lacks the scope.
    """
    if OPERATE not in caller.scopes:
        detail = (
            f"Dead letters need the scope {OPERATE!r}, which this credential does not have. "
            "Use a credential with that scope, or ask your administrator for it."
        )
        raise Problem(Problems.FORBIDDEN, detail)
    return caller


Operator = Annotated[Principal, Depends(operator)]

router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead letters"])


@router.get("", response_model_exclude_none=True)
async def list_letters(
    dependencies: Dependencies, caller: Operator, filters: Annotated[LetterList, Query()]
) -> DeadLetterPage:
    """List dead letters, the most recent death first; `state=parked` lists events that are retried automatically."""
    return await _list_page(dependencies.hop, caller, LetterQuery.of(filters, filters.state))


@router.post("/replay", openapi_extra=json_body(LetterFilter))
async def replay_letters(request: Request, dependencies: Dependencies, caller: Operator) -> ReplayedBatch:
    """Replay one batch of letters; each letter that cannot be replayed stays, with its reason."""
    filters = await parse_body(request, LetterFilter)
    page = await _list_page(dependencies.hop, caller, LetterQuery.of(filters))
    settled: list[Settled] = []
    refused: list[NotReplayed] = []
    for letter in page.letters:
        try:
            settled.append(await _replay(dependencies.hop, caller, letter.id))
        except Problem as problem:
            refused.append(NotReplayed(id=letter.id, detail=problem.detail))
    requests = tuple(one.request_id for one in settled if one.request_id is not None)
    return ReplayedBatch(replayed=len(settled), requests=requests, refused=tuple(refused), next=page.next)


@router.get("/{letter}", response_model_exclude_none=True)
async def show_letter(
    letter: str, dependencies: Dependencies, caller: Operator, *, content: bool = False
) -> DeadLetter:
    """Return one letter; `content=true` adds its headers and bytes, needs the scope `content:read`, and is audited."""
    path = f"{INTERNAL_PATH}/{letter}/content" if content else f"{INTERNAL_PATH}/{letter}"
    return await _call(dependencies.hop, _service_of(letter), caller, Call("GET", path), expected=DeadLetter)


@router.post("/{letter}/replay", response_model_exclude_none=True)
async def replay_letter(letter: str, dependencies: Dependencies, caller: Operator) -> Settled:
    """Process one letter again; a dead request becomes a new request. A second call has the same result."""
    return await _replay(dependencies.hop, caller, letter)


@router.post("/{letter}/discard", response_model_exclude_none=True, openapi_extra=json_body(Discard))
async def discard_letter(letter: str, request: Request, dependencies: Dependencies, caller: Operator) -> Settled:
    """Give up one letter for good, with a reason that is kept."""
    call = _post(f"{INTERNAL_PATH}/{letter}/discard", await parse_body(request, Discard))
    return await _call(dependencies.hop, _service_of(letter), caller, call, expected=Settled)


async def _list_page(hop: Hop, caller: Principal, query: LetterQuery) -> DeadLetterPage:
    """Merge the lists of the services; each service returns one letter more than the page holds."""
    keepers = dead_letter_services()
    if query.service is not None and query.service not in keepers:
        detail = (
            f"service: {query.service!r} has no dead letters. "
            f"Expected one of {', '.join(keepers)}; leave the parameter out to list all of them."
        )
        raise Problem(Problems.INVALID_PARAMETER, detail)
    call = _post(f"{INTERNAL_PATH}/list", query)
    services = keepers if query.service is None else (query.service,)
    pages = await asyncio.gather(*(_call(hop, service, caller, call, expected=DeadLetterPage) for service in services))
    return _merge([letter for page in pages for letter in page.letters], query.limit - 1)


def _merge(letters: Sequence[DeadLetter], page_size: int) -> DeadLetterPage:
    ordered = sorted(letters, key=lambda letter: letter.place, reverse=True)
    following = ordered[page_size - 1].cursor if len(ordered) > page_size else None
    return DeadLetterPage(letters=tuple(ordered[:page_size]), next=following)


async def _replay(hop: Hop, caller: Principal, letter: str) -> Settled:
    service, path = _service_of(letter), f"{INTERNAL_PATH}/{letter}/replay"
    settled = await _call(hop, service, caller, _post(path, Replay()), expected=Settled)
    if settled.outcome != "needs_request" or settled.request_id is None:
        return settled
    retry = _post("/internal/retries", RetryRequest(request_id=settled.request_id))
    retried = await _call(hop, REQUEST_MANAGER.name, caller, retry, expected=Retried)
    replay = _post(path, Replay(request_id=retried.request_id))
    return await _call(hop, service, caller, replay, expected=Settled)


def _service_of(letter: str) -> str:
    """Return the service that a letter's id names.

    Raises:
        Problem: UNKNOWN_DEAD_LETTER: the id has another form, or names a service without dead letters.
    """
    parsed = parse_letter_id(letter)
    if parsed is None or parsed.service not in dead_letter_services():
        detail = (
            f"There is no dead letter {letter[:200]} that you may see. "
            "Expected an id from the list at /api/v1/dead-letters."
        )
        raise Problem(Problems.UNKNOWN_DEAD_LETTER, detail)
    return parsed.service


def _post(path: str, body: BaseModel) -> Call:
    return Call("POST", path, body.model_dump_json(exclude_none=True).encode(), headers=_JSON)


async def _call[T: BaseModel](hop: Hop, service: str, caller: Principal, call: Call, *, expected: type[T]) -> T:
    """Call a service and return its parsed answer.

    Raises:
        Problem: the service's own refusal.
    """
    answer = await hop.call(service, caller, call)
    if answer.status != 200:
        raise _problem(answer)
    return expected.model_validate_json(answer.body)


def _problem(answer: Answer) -> Problem:
    body = ProblemBody.model_validate_json(answer.body)
    headers = {name.decode(): value.decode() for name, value in answer.headers if name == b"retry-after"}
    return Problem(_KIND_BY_URI.get(body.type, Problems.INTERNAL), body.detail, headers=headers)

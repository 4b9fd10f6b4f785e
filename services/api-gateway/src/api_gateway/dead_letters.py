"""The door to the dead letters of the whole fleet: one list of what each service keeps, and one way to deal with them.

The gateway keeps nothing of them. A dead request is replayed in three calls: its keeper says which request it was,
request-manager accepts a new one, the keeper is told which. Each can be repeated, so whoever breaks off in between
starts again and gets the same.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel

from api_gateway.api import Caller, Given
from api_gateway.hop import ROUTES, Answer, Call, Hop
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

INSIDE: Final = "/internal/dead-letters"
KEEPERS: Final = tuple(sorted(set(ROUTES.values())))
"""Services that keep dead letters."""
_KINDS: Final = {kind.value.uri: kind for kind in Problems}
_JSON: Final = ((b"content-type", b"application/json"),)


class LetterList(LetterFilter):
    """What `GET /api/v1/dead-letters` takes."""

    state: Letters = "dead"


async def operator_of(caller: Caller) -> Principal:
    if OPERATE not in caller.scopes:
        raise Problem(Problems.FORBIDDEN, f"This needs the scope {OPERATE}, which the credential does not have.")
    return caller


Operator = Annotated[Principal, Depends(operator_of)]

router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead letters"])


@router.get("", response_model_exclude_none=True)
async def list_letters(means: Given, caller: Operator, wanted: Annotated[LetterList, Query()]) -> DeadLetterPage:
    """List what waits for somebody, the last that died first; `parked` shows what is tried again by itself."""
    return await _page(means.hop, caller, LetterQuery.of(wanted, wanted.state))


@router.post("/replay", openapi_extra=json_body(LetterFilter))
async def replay_letters(request: Request, means: Given, caller: Operator) -> ReplayedBatch:
    """Replay one batch of letters; those that cannot be replayed stay, each with its reason."""
    wanted = await parse_body(request, LetterFilter)
    page = await _page(means.hop, caller, LetterQuery.of(wanted))
    settled: list[Settled] = []
    refused: list[NotReplayed] = []
    for letter in page.letters:
        try:
            settled.append(await _replay(means.hop, caller, letter.id))
        except Problem as problem:
            refused.append(NotReplayed(id=letter.id, detail=problem.detail))
    requests = tuple(one.request_id for one in settled if one.request_id is not None)
    return ReplayedBatch(replayed=len(settled), requests=requests, refused=tuple(refused), next=page.next)


@router.get("/{letter}", response_model_exclude_none=True)
async def show_letter(letter: str, means: Given, caller: Operator, *, content: bool = False) -> DeadLetter:
    """Show one letter; with its headers and bytes, which needs the scope `content:read` and is on record."""
    path = f"{INSIDE}/{letter}/content" if content else f"{INSIDE}/{letter}"
    return await _ask(means.hop, _keeper(letter), caller, expected=DeadLetter, call=Call("GET", path))


@router.post("/{letter}/replay", response_model_exclude_none=True)
async def replay_letter(letter: str, means: Given, caller: Operator) -> Settled:
    """Have one letter tried again; a dead request becomes a new one. Twice is the same as once."""
    return await _replay(means.hop, caller, letter)


@router.post("/{letter}/discard", response_model_exclude_none=True, openapi_extra=json_body(Discard))
async def discard_letter(letter: str, request: Request, means: Given, caller: Operator) -> Settled:
    """Give one letter up for good, with a reason that stays on record."""
    body = await parse_body(request, Discard)
    return await _ask(
        means.hop, _keeper(letter), caller, expected=Settled, call=_post(f"{INSIDE}/{letter}/discard", body)
    )


async def _page(hop: Hop, caller: Principal, query: LetterQuery) -> DeadLetterPage:
    """Put the lists of all keepers together; each was asked for one letter more than fits on the page."""
    if query.service is not None and query.service not in KEEPERS:
        detail = f"service: {query.service!r} keeps no dead letters; expected one of {', '.join(KEEPERS)}"
        raise Problem(Problems.INVALID_PARAMETER, detail)
    call = _post(f"{INSIDE}/list", query)
    keepers = KEEPERS if query.service is None else (query.service,)
    pages = await asyncio.gather(*(_ask(hop, keeper, caller, expected=DeadLetterPage, call=call) for keeper in keepers))
    return _merged([letter for page in pages for letter in page.letters], query.limit - 1)


def _merged(letters: Sequence[DeadLetter], most: int) -> DeadLetterPage:
    ordered = sorted(letters, key=lambda letter: letter.place, reverse=True)
    return DeadLetterPage(letters=tuple(ordered[:most]), next=ordered[most - 1].cursor if len(ordered) > most else None)


async def _replay(hop: Hop, caller: Principal, letter: str) -> Settled:
    keeper, path = _keeper(letter), f"{INSIDE}/{letter}/replay"
    settled = await _ask(hop, keeper, caller, expected=Settled, call=_post(path, Replay()))
    if settled.outcome != "needs_request" or settled.request_id is None:
        return settled
    retry = _post("/internal/retries", RetryRequest(request_id=settled.request_id))
    retried = await _ask(hop, "request-manager", caller, expected=Retried, call=retry)
    return await _ask(hop, keeper, caller, expected=Settled, call=_post(path, Replay(request_id=retried.request_id)))


def _keeper(letter: str) -> str:
    """Return the service that keeps a letter, as its id names it."""
    named = parse_letter_id(letter)
    if named is None or named.service not in KEEPERS:
        raise Problem(Problems.UNKNOWN_DEAD_LETTER, f"There is no dead letter {letter[:200]} that you may see.")
    return named.service


def _post(path: str, body: BaseModel) -> Call:
    return Call("POST", path, body.model_dump_json(exclude_none=True).encode(), headers=_JSON)


async def _ask[T: BaseModel](hop: Hop, service: str, caller: Principal, call: Call, *, expected: type[T]) -> T:
    """Call a service and return what it answers.

    Raises:
        Problem: the service's own.
    """
    answer = await hop.call(service, caller, call)
    if answer.status != 200:
        raise _problem(answer)
    return expected.model_validate_json(answer.body)


def _problem(answer: Answer) -> Problem:
    body = ProblemBody.model_validate_json(answer.body)
    passed = {name.decode(): value.decode() for name, value in answer.headers if name == b"retry-after"}
    return Problem(_KINDS.get(body.type, Problems.INTERNAL), body.detail, headers=passed)

"""HTTP routes for one service's dead letters: every service has the same, and the gateway calls them for operators."""

from fastapi import APIRouter, Depends, Request, Response

from durable_work.dead_letters.settling import DeadLetters
from service_process.web import parse_body
from shared_clients.identity import Identity, Verifier, require_scope
from shared_models.dead_letters import (
    OPERATE,
    READ_CONTENT,
    DeadLetter,
    DeadLetterPage,
    Discard,
    LetterQuery,
    Replay,
    Settled,
)
from shared_models.problems import Problem, Problems

PREFIX = "/internal/dead-letters"


def dead_letter_routes(letters: DeadLetters, verifier: Verifier) -> APIRouter:
    """Return the routes for the dead letters of one service.

    Args:
        letters: the dead letters of the service.
        verifier: verifies the caller's token; every route needs the scope `operate`.
    """
    operator = Depends(require_scope(verifier, OPERATE))
    router = APIRouter(prefix=PREFIX, include_in_schema=False)

    @router.post("/list")
    async def list_letters(request: Request, caller: Identity = operator) -> Response:
        query = await parse_body(request, LetterQuery)
        return _json(DeadLetterPage(letters=tuple(await letters.list(caller.principal, query))))

    @router.get("/{letter}")
    async def show_letter(letter: str, caller: Identity = operator) -> Response:
        return _json(await letters.show(caller.principal, letter, content=False))

    @router.get("/{letter}/content")
    async def read_letter(letter: str, caller: Identity = operator) -> Response:
        if READ_CONTENT not in caller.principal.scopes:
            detail = f"This needs the scope {READ_CONTENT}, which the credential does not have."
            raise Problem(Problems.FORBIDDEN, detail)
        return _json(await letters.show(caller.principal, letter, content=True))

    @router.post("/{letter}/replay")
    async def replay_letter(letter: str, request: Request, caller: Identity = operator) -> Response:
        body = await parse_body(request, Replay)
        return _json(await letters.replay(caller.principal, letter, body.request_id))

    @router.post("/{letter}/discard")
    async def discard_letter(letter: str, request: Request, caller: Identity = operator) -> Response:
        body = await parse_body(request, Discard)
        return _json(await letters.discard(caller.principal, letter, body.reason))

    return router


def _json(body: DeadLetter | DeadLetterPage | Settled) -> Response:
    content = body.model_dump_json(exclude_none=True).encode()
    return Response(content, headers={"Cache-Control": "no-store"}, media_type="application/json")

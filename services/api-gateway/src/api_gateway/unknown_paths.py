"""Paths below /api/v1 that no other route takes: an identified caller learns which paths and methods there are."""

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.routing import Match

from api_gateway import api, dead_letters
from api_gateway.api import METHODS, Caller
from shared_models.problems import Problem, Problems
from shared_models.services import routes

router = APIRouter()


@router.api_route("/api/v1/{path:path}", methods=METHODS, include_in_schema=False)
async def refuse(path: str, request: Request, caller: Caller) -> None:
    """Refuse a path that does not exist, or a method that its path does not have.

    Raises:
        Problem: NOT_FOUND or METHOD_NOT_ALLOWED.
    """
    del path, caller
    full = request.scope["path"][:200]
    known = [route for route in (*dead_letters.router.routes, *api.router.routes) if isinstance(route, APIRoute)]
    matching = [route for route in known if route.matches(request.scope)[0] is not Match.NONE]
    exact = [route for route in matching if route.path == full] or matching
    allowed = {method for route in exact for method in route.methods or ()}
    if allowed:
        detail = f"{request.method} is not among the methods of {full}"
        raise Problem(Problems.METHOD_NOT_ALLOWED, detail, headers={"Allow": ", ".join(sorted(allowed))})
    detail = f"There is no resource at {full}. Expected a path that begins with one of: {', '.join(routes())}."
    raise Problem(Problems.NOT_FOUND, detail)

"""Error responses of all kinds, as problem+json (RFC 9457).

A raised `Problem` has its kind; the exceptions of FastAPI and Starlette are translated here into the same catalogue, so
that a client sees one format for all errors. The body never shows internals.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import structlog
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.types import Scope

from shared_clients import tracing
from shared_clients.errors import Transient, Unknown
from shared_models.problems import Problem, Problems

log = structlog.get_logger()

_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Methods that may be sent again: doing them twice is the same as once (RFC 9110, 9.2.2)."""

MEDIA_TYPE: Final = "application/problem+json"
MAX_ERRORS: Final = 20
"""Faults listed in one response, because a hostile body may have thousands."""

_BY_STATUS: Final = {
    kind.value.status: kind
    for kind in (
        Problems.BAD_REQUEST,
        Problems.NO_IDENTITY,
        Problems.FORBIDDEN,
        Problems.NOT_FOUND,
        Problems.METHOD_NOT_ALLOWED,
        Problems.RECEIVE_TIMEOUT,
        Problems.BODY_TOO_LARGE,
        Problems.UNSUPPORTED_MEDIA_TYPE,
        Problems.MISDIRECTED,
        Problems.UNAVAILABLE,
    )
}
_METHODS: Final = ("DELETE", "GET", "PATCH", "POST", "PUT")
_PLAIN_MESSAGES: Final = {
    "missing": "is required and missing",
    "extra_forbidden": "is not a known member; remove it or check its spelling",
}


def problem_response(scope: Scope, problem: Problem, trace_id: str | None = None) -> Response:
    """Return the response for a problem.

    Args:
        scope: the ASGI scope of the request.
        problem: the content of the response.
        trace_id: of the log line; by default that of the current trace.
    """
    body = {
        "type": problem.kind.uri,
        "title": problem.kind.title,
        "status": problem.kind.status,
        "detail": problem.detail,
        "instance": _instance(scope),
        "trace_id": trace_id or tracing.trace_id(),
        "errors": problem.errors,
    }
    return Response(to_json(body), problem.kind.status, problem.headers, MEDIA_TYPE)


async def on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(request.scope, error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Translate the exceptions of the framework, and those of a body beyond its limits."""
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code, Problems.INTERNAL if error.status_code >= 500 else Problems.BAD_REQUEST)
    headers = error.headers
    if error.status_code in {404, 405} and (allowed := _methods(request)):
        kind, headers = Problems.METHOD_NOT_ALLOWED, {**(headers or {}), "Allow": ", ".join(sorted(allowed))}
    details = {
        404: f"no route of this service matches {_instance(request.scope)}",
        405: f"{request.method[:20]} is not among the methods of {_instance(request.scope)}",
        500: "the service could not finish; name the trace_id when you report it",
    }
    detail = details.get(kind.value.status, error.detail)
    return problem_response(request.scope, Problem(kind, detail, headers=headers))


def _methods(request: Request) -> set[str]:
    """Return the methods of all routes that match an address; the framework names only those of the first.

    Each method is tried, because a router hides its routes. A mounted app answers for its own routes.
    """
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    found = {
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    }
    return found | ({"HEAD"} if "GET" in found else set())


async def on_transient(request: Request, error: Exception) -> Response:
    """Answer 503 when an outside system does not answer; only the log names the system."""
    assert isinstance(error, Transient)
    problem = Problem(
        Problems.UNAVAILABLE,
        "the request was not carried out; send it again after the time in Retry-After",
        headers={"Retry-After": str(math.ceil(error.retry_after or 1))},
    )
    trace_id = tracing.trace_id()
    log.warning("request_unavailable", path=_instance(request.scope), error=str(error), trace_id=trace_id)
    return problem_response(request.scope, problem, trace_id)


async def on_unknown(request: Request, error: Exception) -> Response:
    """Answer 503 when the answer of an outside system was lost, and say how to find out what became of the request."""
    assert isinstance(error, Unknown)
    problem = Problem(Problems.OUTCOME_UNKNOWN, repeat_advice(request.scope), headers={"Retry-After": "1"})
    trace_id = tracing.trace_id()
    log.warning("request_outcome_unknown", path=_instance(request.scope), error=str(error), trace_id=trace_id)
    return problem_response(request.scope, problem, trace_id)


def repeat_advice(scope: Scope) -> str:
    """Say how a call whose outcome is unknown is repeated without doing it twice."""
    if scope["method"] in _REPEATABLE:
        return "the request may have been carried out; send it again, which changes nothing if it was"
    if any(name == b"idempotency-key" for name, _ in scope["headers"]):
        return "the request may have been carried out; send it again with the same Idempotency-Key to learn its outcome"
    return (
        "the request may have been carried out; look before you send it again, and send an Idempotency-Key with the "
        "next one, so that it can be repeated safely"
    )


async def on_invalid_parameters(request: Request, error: Exception) -> Response:
    """Translate the faults that FastAPI found in the path, query and headers."""
    assert isinstance(error, RequestValidationError)
    errors = fault_entries(
        (pointer_of(fault["loc"]), fault["type"], fault["msg"]) for fault in error.errors()[:MAX_ERRORS]
    )
    detail = f"{len(error.errors())} parameter(s) are not as expected; the first: {errors[0]['pointer']}"
    return problem_response(request.scope, Problem(Problems.INVALID_PARAMETER, detail, errors=errors))


def fault_entries(faults: Iterable[tuple[str, str, str]]) -> tuple[Mapping[str, str], ...]:
    """Return `errors` entries for faults, given as pointer, pydantic type and pydantic message, without values."""
    return tuple(
        {"pointer": pointer, "detail": _PLAIN_MESSAGES.get(type_, message)} for pointer, type_, message in faults
    )


def pointer_of(steps: Sequence[int | str]) -> str:
    """Return the JSON Pointer (RFC 6901) of a path."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')[:200]}" for step in steps)


def _instance(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw[:200].decode("ascii", "replace")

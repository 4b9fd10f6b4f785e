"""Request bodies: untrusted bytes become a frozen model, or a problem that names each fault and its place.

A body is JSON by RFC 8259 that Postgres can store: no duplicate members, no NaN, no lone surrogates, no byte order
mark, no NUL characters, limited depth, a limited number of values. A fast parser checks the grammar first; then
pydantic reads the bytes straight into the model, which costs less than building Python objects in between.
"""

import re
from collections.abc import Iterator
from typing import Final

import jiter
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service_process.web.problems import MAX_ERRORS, InputFault, fault_entries, pointer_of
from shared_models.problems import Problem, Problems

_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of NUL; an escaped backslash before the letters u0000 does not match."""

MAX_VALUES: Final = 4096
"""Members and elements in one body, at any depth. Each may be a fault, and pydantic describes every fault it finds."""

type Json = dict[str, Json] | list[Json] | str | int | float | bool | None


async def parse_body[T: BaseModel](request: Request, model: type[T]) -> T:
    """Read the body as `model`.

    Raises:
        Problem: INVALID_JSON, or INVALID_BODY with one entry for each fault (at most `MAX_ERRORS`).
    """
    return parse_json(await request.body(), model)


def parse_json[T: BaseModel](body: bytes, model: type[T]) -> T:
    """Read JSON bytes as `model`; see `parse_body`."""
    _check_grammar(body)
    if b"\\u0000" in body and _NUL.search(body):
        path = next(_paths_with_nul(jiter.from_json(body)))
        raise _invalid(
            InputFault(pointer_of(path), "nul", "holds the character NUL (\\u0000), which cannot be stored; remove it")
        )
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _explained(error, body) from None


def json_body(model: type[BaseModel]) -> dict[str, object]:
    """Return the `openapi_extra` of a route that calls `parse_body`; the document has to define the model's schema."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _check_grammar(body: bytes) -> None:
    try:
        document: Json = jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise Problem(
            Problems.INVALID_JSON, f"the body is not JSON as RFC 8259 defines it: {str(error)[:200]}"
        ) from None
    if _has_more_values(document, MAX_VALUES):
        raise _invalid(InputFault("", "too_many", f"has more than {MAX_VALUES} members and elements; send fewer"))


def _has_more_values(document: Json, limit: int) -> bool:
    """Tell whether a document has more values than the limit; count no further than that."""
    containers, values = [document], 0
    while containers:
        here = containers.pop()
        children = list(here.values()) if isinstance(here, dict) else here if isinstance(here, list) else []
        values += len(children)
        if values > limit:
            return True
        containers += [child for child in children if isinstance(child, dict | list)]
    return False


def _invalid(*faults: InputFault, more: int = 0) -> Problem:
    errors = fault_entries(faults)
    first = f"{errors[0]['pointer'] or 'the body'}: {errors[0]['detail']}"
    rest = len(faults) - 1 + more
    return Problem(Problems.INVALID_BODY, f"{first} (and {rest} more)" if rest else first, errors=errors)


def _explained(error: ValidationError, body: bytes) -> Problem:
    document: Json = jiter.from_json(body)
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    listed = [
        InputFault(
            pointer_of(_real_path(document, fault["loc"], missing=fault["type"] == "missing")),
            fault["type"],
            fault["msg"],
        )
        for fault in faults[:MAX_ERRORS]
    ]
    return _invalid(*listed, more=len(faults) - len(listed))


def _real_path(document: Json, steps: tuple[int | str, ...], *, missing: bool) -> list[int | str]:
    """Return the path of a fault in the document, without the members of unions that pydantic adds to it."""
    real: list[int | str] = []
    here = document
    for step in steps:
        if isinstance(here, dict) and step in here:
            here = here[str(step)]
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            continue
        real.append(step)
    return [*real, steps[-1]] if missing else real


def _paths_with_nul(here: Json) -> Iterator[tuple[int | str, ...]]:
    if isinstance(here, str) and "\0" in here:
        yield ()
    members = here.items() if isinstance(here, dict) else enumerate(here) if isinstance(here, list) else ()
    for step, value in members:
        if isinstance(step, str) and "\0" in step:
            yield ()
        yield from ((step, *rest) for rest in _paths_with_nul(value))

"""The refusals of the fake gateway, in the shape of the real one."""

from starlette.responses import JSONResponse


def problem(status: int, title: str, detail: str) -> JSONResponse:
    body = {"type": "urn:flotilla:problem:fake", "title": title, "status": status, "detail": detail}
    trace = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}
    return JSONResponse({**body, **trace}, status, media_type="application/problem+json")


def missing(what: str) -> JSONResponse:
    return problem(404, f"There is no such {what}", "It was deleted, or never was.")

"""The gate around the gateway's app: a request gets a place or, where this process has its hands full, a 503 at once.

Plain ASGI and outermost, because a refusal has to cost next to nothing: nobody's identity is asked for here. Probes
pass, whatever goes on: a process that is busy is not ill.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from api_gateway.admission.admission import Admission
from api_gateway.admission.places import KEY, Place, Stage
from service_process.web import PROBES, problem_response
from shared_models.problems import Problem


class Gate:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        has_body = _has_body(scope)
        try:
            place = self._admission.enter(Stage.RECEIVING if has_body else Stage.IN_FLIGHT)
        except Problem as problem:
            await problem_response(scope, problem)(scope, receive, send)
            return
        await self._let_in(place, scope, place.receiving(receive) if has_body else receive, send)

    async def _let_in(self, place: Place, scope: Scope, receive: Receive, send: Send) -> None:
        scope[KEY] = place
        try:
            await self._app(scope, receive, place.sending(send))
        finally:
            place.leave()


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )

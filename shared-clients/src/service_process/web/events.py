"""The door for events: where a broker posts what the bus has brought, in the three modes of CloudEvents over HTTP.

It answers 204 when the bus has handled it all, which means committed: also what is no event, because the inbox keeps it
as a dead letter with the reason, and a 4xx would have the broker make a second one, or drop it. It answers 503 for
"later", 401 to strangers and 413 to what no bus carries.
"""

from fastapi import APIRouter, Request, Response

from service_process.web.edge import BodyLimits
from shared_clients.bus.http import HttpBus
from shared_clients.bus.port import Bus


def event_routes(bus: Bus) -> list[APIRouter]:
    """Return the routes by which a service gets events: none, unless its bus is a broker over HTTP."""
    if not isinstance(bus, HttpBus):
        return []
    router = APIRouter()

    async def take_events(request: Request) -> Response:
        given = request.headers.getlist("Authorization")
        await bus.receive(request.scope["headers"], given[0] if len(given) == 1 else "", request.body)
        return Response(status_code=204)

    router.add_api_route(BodyLimits().events_at, take_events, methods=["POST"], include_in_schema=False)
    return [router]

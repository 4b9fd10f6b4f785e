"""The route to which a broker posts events, in the three modes of CloudEvents over HTTP.

It answers 204 when all events of the request are handled, which means committed. A request that is no event gets 204
too: the inbox keeps it as a dead letter with the reason, and after a 4xx the broker would keep a second dead letter, or
drop it. A request that has to be sent again gets 503, an unknown sender 401, and a body beyond the bus's limit 413.
"""

from fastapi import APIRouter, Request, Response

from service_process.web.request_guard import BodyLimits
from shared_clients.bus.http import HttpBus
from shared_clients.bus.port import Bus


def event_routes(bus: Bus) -> list[APIRouter]:
    """Return the route for events if the bus is a broker over HTTP; otherwise return no route."""
    if not isinstance(bus, HttpBus):
        return []
    router = APIRouter()

    async def receive_events(request: Request) -> Response:
        values = request.headers.getlist("Authorization")
        await bus.receive(request.scope["headers"], values[0] if len(values) == 1 else "", request.body)
        return Response(status_code=204)

    router.add_api_route(BodyLimits().events_at, receive_events, methods=["POST"], include_in_schema=False)
    return [router]

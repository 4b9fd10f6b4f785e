"""Terminal frames from request-manager's durable rows, for streams that have gone silent."""

from collections.abc import Mapping, Sequence
from itertools import batched
from typing import Final
from uuid import UUID

from pydantic_core import to_json

from api_gateway.hop import Call, Hop
from shared_clients.errors import Transient
from shared_models.frames import TerminalEvent, terminal_frame
from shared_models.requests import Principal, RequestList
from shared_models.services import API_GATEWAY, REQUEST_MANAGER

ENDED_SCOPE: Final = "service:ended"
MAX_ENDED_QUERY: Final = 1000
"""Runs that request-manager takes in one question."""


async def terminal_frames_of(hop: Hop, tenant: str, execution_ids: Sequence[UUID]) -> Mapping[UUID, TerminalEvent]:
    """Return the terminal events of those silent runs that have ended, with one call for each thousand runs.

    Args:
        hop: calls request-manager.
        tenant: the runs' tenant.
        execution_ids: the silent runs.

    Raises:
        Transient: request-manager refused the question.
    """
    events: dict[UUID, TerminalEvent] = {}
    for some in batched(execution_ids, MAX_ENDED_QUERY):
        body = to_json({"request_ids": [str(execution_id) for execution_id in some]})
        call = Call("POST", "/internal/ended", body, headers=[(b"content-type", b"application/json")])
        answer = await hop.call(REQUEST_MANAGER.name, _gateway_as_caller(tenant), call)
        if answer.status != 200:
            raise Transient(f"request-manager answered {answer.status} to POST /internal/ended; expected 200")
        views = RequestList.model_validate_json(answer.body).requests
        events |= {view.request_id: terminal_frame(view) for view in views}
    return events


def _gateway_as_caller(tenant: str) -> Principal:
    """Return the gateway itself as a caller, because no person asks for these rows."""
    return Principal(
        issuer="flotilla",
        subject=API_GATEWAY.name,
        tenant=tenant,
        credential=API_GATEWAY.name,
        channel="service",
        scopes=frozenset({ENDED_SCOPE}),
    )

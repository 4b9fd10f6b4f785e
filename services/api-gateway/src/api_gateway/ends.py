"""Ends of runs from the durable rows, for streams that have gone silent: all of them in one call a second."""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from pydantic_core import to_json

from api_gateway.hop import Call, Hop
from shared_clients.errors import Transient
from shared_models.frames import terminal_frame
from shared_models.requests import Principal, RequestList

OURSELVES: Final = "api-gateway"
ENDED_SCOPE: Final = "service:ended"


async def ended_runs(
    hop: Hop, tenant: str, execution_ids: Sequence[UUID]
) -> Mapping[UUID, tuple[str, Mapping[str, object]]]:
    """Ask request-manager which of a tenant's runs have ended, in one call."""
    body = to_json({"request_ids": [str(execution_id) for execution_id in execution_ids]})
    ourselves = Principal(
        issuer="flotilla",
        subject=OURSELVES,
        tenant=tenant,
        credential=OURSELVES,
        channel="service",
        scopes=frozenset({ENDED_SCOPE}),
    )
    call = Call("POST", "/internal/ended", body, headers=[(b"content-type", b"application/json")])
    answer = await hop.call("request-manager", ourselves, call)
    if answer.status != 200:
        raise Transient(f"request-manager answered {answer.status} when asked for ends")
    views = RequestList.model_validate_json(answer.body).requests
    return {view.request_id: terminal_frame(view) for view in views}

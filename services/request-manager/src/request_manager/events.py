"""The events door: what request-manager learns from agent-service."""

from durable_work.inbox import Reaction
from request_manager.usecases.settle_request import settle_request
from shared_clients.postgres import Tx
from shared_models.catalog import RESPONSE_FAILED, RESPONSE_READY, RUN_CHANGED
from shared_models.envelope import Envelope
from shared_models.requests import ResponseFailed, ResponseReady, RunChanged


async def on_run_changed(tx: Tx, event: Envelope, change: RunChanged) -> None:
    await settle_request(tx, event, change)


async def on_response(tx: Tx, event: Envelope, end: ResponseReady | ResponseFailed) -> None:
    await settle_request(tx, event, end)


REACTIONS = (
    Reaction(RUN_CHANGED, on_run_changed),
    Reaction(RESPONSE_READY, on_response),
    Reaction(RESPONSE_FAILED, on_response),
)

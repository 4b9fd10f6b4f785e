"""The events door: the reactions of request-manager to the events of agent-service."""

from durable_work.inbox import Reaction
from request_manager.usecases.settle_request import record_run_status, settle_request
from shared_models.catalog import RESPONSE_FAILED, RESPONSE_READY, RUN_CHANGED

REACTIONS = (
    Reaction(RUN_CHANGED, record_run_status),
    Reaction(RESPONSE_READY, settle_request),
    Reaction(RESPONSE_FAILED, settle_request),
)

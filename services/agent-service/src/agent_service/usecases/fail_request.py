"""Fail a request whose event can never become a run, so that its owner gets a result and its session goes on."""

from agent_service.domain.runs import failed
from agent_service.queries import runs as queries
from agent_service.usecases.republish_state import republish_state
from durable_work.outbox import Outbox
from shared_clients.postgres import Tx
from shared_models.catalog import RESPONSE_FAILED
from shared_models.envelope import Envelope, new_event
from shared_models.requests import FailureReason


async def fail_request(tx: Tx, outbox: Outbox, event: Envelope, error: str) -> None:
    """Store a failed run for the request and publish the failure; the dead letter keeps the event.

    A run that is stored already stays as it is, and its state is published again.
    """
    end = failed(FailureReason.INTERNAL, f"The request's event is kept as a dead letter: {error[:200]}")
    context = event.context
    if event.turn is not None and not await queries.insert_failed_run(tx, context, end, event.id):
        await republish_state(tx, outbox, context.tenant, context.request_id)
    else:
        await outbox.publish(tx, new_event("agent-service", RESPONSE_FAILED, end, context, cause=event.id))

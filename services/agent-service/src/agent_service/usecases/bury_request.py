"""Fail a request whose event can never become a run, so that its owner hears of it and its session goes on."""

from agent_service.domain.runs import failed
from agent_service.queries import runs as queries
from agent_service.usecases.tell_again import tell_again
from durable_work.outbox import Outbox
from shared_clients.postgres import Tx
from shared_models.catalog import RESPONSE_FAILED
from shared_models.envelope import Envelope, new_event
from shared_models.requests import FailureReason


async def bury_request(tx: Tx, outbox: Outbox, event: Envelope, error: str) -> None:
    """Store a failed run in the request's place and tell the failure; the dead letter keeps the details."""
    message = f"The request could not be taken on. Its event is kept as a dead letter: {error[:200]}"
    end = failed(FailureReason.INTERNAL, message)
    context = event.context
    if event.turn is not None and not await queries.bury_run(tx, context, end, event.id):
        await tell_again(tx, outbox, context.tenant, context.request_id)
    else:
        await outbox.publish(tx, new_event("agent-service", RESPONSE_FAILED, end, context, cause=event.id))

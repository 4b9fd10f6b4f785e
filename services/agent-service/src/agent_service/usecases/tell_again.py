"""Tell once more what is known of a run: whoever asks has not heard it, whatever became of the first time."""

from uuid import UUID

from agent_service.queries import ends as queries
from durable_work.outbox import Outbox
from shared_clients.postgres import Tx
from shared_models.catalog import RESPONSE_FAILED, RESPONSE_READY, RUN_CHANGED
from shared_models.envelope import new_event
from shared_models.requests import ResponseReady, RunChanged, Status


async def tell_again(tx: Tx, outbox: Outbox, tenant: str, execution_id: UUID) -> bool:
    """Publish a run's end, or that it is being worked on; False where there is no such run."""
    known = await queries.known_run(tx, tenant, execution_id)
    if known is None:
        return False
    trace = {"traceparent": known.traceparent} if known.traceparent else {}
    if known.end is not None:
        event = RESPONSE_READY if isinstance(known.end, ResponseReady) else RESPONSE_FAILED
        await outbox.publish(tx, new_event("agent-service", event, known.end, known.context, trace=trace))
    elif known.epoch is not None:
        change = RunChanged(status=Status.RUNNING, epoch=known.epoch)
        await outbox.publish(tx, new_event("agent-service", RUN_CHANGED, change, known.context, trace=trace))
    return True

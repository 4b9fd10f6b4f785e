"""Publish the state of a run again, because request-manager asks again and may have missed the first event."""

from uuid import UUID

from agent_service.domain.runs import trace_of
from agent_service.queries import ends as queries
from durable_work.outbox import Outbox
from shared_clients.postgres import Tx
from shared_models.catalog import RESPONSE_FAILED, RESPONSE_READY, RUN_CHANGED
from shared_models.envelope import new_event
from shared_models.requests import ResponseReady, RunChanged, Status


async def republish_state(tx: Tx, outbox: Outbox, tenant: str, execution_id: UUID) -> bool:
    """Publish the end of a run, or that it is running; return False if there is no such run."""
    state = await queries.load_run_state(tx, tenant, execution_id)
    if state is None:
        return False
    trace = trace_of(state)
    if state.end is not None:
        event_type = RESPONSE_READY if isinstance(state.end, ResponseReady) else RESPONSE_FAILED
        await outbox.publish(tx, new_event("agent-service", event_type, state.end, state.context, trace=trace))
    elif state.epoch is not None:
        change = RunChanged(status=Status.RUNNING, epoch=state.epoch)
        await outbox.publish(tx, new_event("agent-service", RUN_CHANGED, change, state.context, trace=trace))
    return True

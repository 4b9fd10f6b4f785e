"""The events door: new requests, each of which becomes a run, and cancelled requests."""

from functools import partial

from agent_service.domain.runs import ClaimedRun, NewRun
from agent_service.usecases.cancel_run import cancel_run
from agent_service.usecases.fail_request import fail_request
from agent_service.usecases.queue_run import queue_run
from durable_work.inbox import Reaction
from durable_work.jobs import Slots
from durable_work.outbox import Outbox
from shared_clients.postgres import Tx
from shared_clients.tracing import inject
from shared_models.catalog import REQUEST_CANCELLED, REQUEST_CREATED
from shared_models.envelope import Envelope
from shared_models.requests import RequestCancelled, RequestCreated


def reactions(outbox: Outbox, slots: Slots[ClaimedRun]) -> tuple[Reaction, ...]:
    """Return the reaction of agent-service to each event type that it consumes."""
    return (
        Reaction(
            REQUEST_CREATED,
            partial(on_request_created, outbox=outbox, slots=slots),
            on_dead=partial(on_dead_request, outbox),
        ),
        Reaction(REQUEST_CANCELLED, partial(on_request_cancelled, outbox)),
    )


async def on_request_created(
    tx: Tx, event: Envelope, request: RequestCreated, *, outbox: Outbox, slots: Slots[ClaimedRun]
) -> None:
    if event.turn is None or event.expirytime is None:
        await fail_request(tx, outbox, event, "the event carries no turn or no expirytime")
        return
    run = NewRun(
        context=event.context,
        agent=request.agent,
        content=request.content,
        principal=request.principal,
        traceparent=inject().get("traceparent"),
        cause=event.id,
        after_turn=request.after_turn,
    )
    await queue_run(tx, outbox, slots, run)


async def on_request_cancelled(outbox: Outbox, tx: Tx, event: Envelope, cancellation: RequestCancelled) -> None:
    if cancellation.undeliverable is not None:
        await fail_request(tx, outbox, event, cancellation.undeliverable)
        return
    await cancel_run(tx, outbox, event.context, cancellation.principal.person)


async def on_dead_request(outbox: Outbox, tx: Tx, event: Envelope, error: str) -> None:
    await fail_request(tx, outbox, event, error)

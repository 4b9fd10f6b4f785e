"""Publish silent requests again, and report a balance of requests that does not add up.

A request is silent while its next event from agent-service is overdue. Reconciling decides nothing: agent-service gets
the event again, and then makes the missing run or publishes the run's state again.
"""

from datetime import timedelta
from typing import Final

import structlog

from durable_work.outbox import Outbox
from request_manager import metrics
from request_manager.queries import reconciling
from shared_clients.postgres import Database
from shared_models.catalog import REQUEST_CANCELLED, REQUEST_CREATED
from shared_models.envelope import EventContext, new_event
from shared_models.requests import Principal, RequestCancelled, RequestCreated

log = structlog.get_logger()

SILENCE: Final = timedelta(seconds=30)
"""The time after which a request is silent: without an event since its acceptance, its cancellation or its deadline.

The pause before a request is published once more doubles each time."""
BATCH: Final = 50


async def reconcile_requests(database: Database, outbox: Outbox, silence: timedelta = SILENCE) -> int:
    """Publish silent requests again as new events, and return their number; safe in any number of processes."""
    async with database.transaction() as tx:
        silent = await reconciling.claim_silent_requests(tx, silence, BATCH)
        for request in silent:
            context = EventContext.of_request(
                request.request_id, request.session_id, request.tenant, request.turn, request.expires_at
            )
            principal = Principal.model_validate(request.principal)
            created = RequestCreated(
                content=request.content,
                agent=request.agent,
                principal=principal,
                metadata=request.metadata,
                after_turn=request.after_turn,
            )
            await outbox.publish(tx, new_event("request-manager", REQUEST_CREATED, created, context))
            if request.cancel_requested:
                cancellation = RequestCancelled(principal=principal)
                await outbox.publish(tx, new_event("request-manager", REQUEST_CANCELLED, cancellation, context))
    metrics.REQUESTS_ASKED_AGAIN.inc(len(silent))
    for request in silent:
        log.warning("request_asked_about", request_id=str(request.request_id), turn=request.turn)
    return len(silent)


async def balance_requests(database: Database, silence: timedelta = SILENCE) -> None:
    """Measure accepted, ended and pending requests, and log an error when the numbers do not add up."""
    balance = await reconciling.load_balance(database, silence)
    for state in ("accepted", "terminal", "pending", "overdue", "unaccounted"):
        metrics.REQUESTS.labels(state).set(getattr(balance, state))
    if balance.unaccounted:
        log.error("requests_unaccounted", accepted=balance.accepted, found=balance.terminal + balance.pending)
    if balance.overdue:
        log.error("requests_overdue", requests=balance.overdue, consequence="they are published again until they end")

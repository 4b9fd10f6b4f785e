"""Compare what was accepted with what was heard of it: ask again about the silent, and report what does not add up.

It never decides: agent-service, asked again, makes the run that it has missed, or tells once more what it has told.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from durable_work.outbox import Outbox
from request_manager import metrics, queries
from request_manager.domain import SilentRequest
from shared_clients.postgres import Database
from shared_models.catalog import REQUEST_CANCELLED, REQUEST_CREATED
from shared_models.envelope import EventContext, new_event
from shared_models.requests import Principal, RequestCancelled, RequestCreated

log = structlog.get_logger()

SILENCE: Final = timedelta(seconds=30)
"""How long nothing is heard of a request, of its cancel, or after its deadline, before it is asked about; the pause
doubles with each time."""
BATCH: Final = 50


async def reconcile_requests(database: Database, outbox: Outbox, silence: timedelta = SILENCE) -> int:
    """Publish the silent requests again as fresh events, and return how many; safe in any number of processes."""
    async with database.transaction() as tx:
        silent = await queries.silent_requests(tx, silence, BATCH)
        for request in silent:
            context = EventContext(
                request.request_id, request.session_id, request.tenant, request.turn, request.expires_at
            )
            principal = Principal.model_validate(request.principal)
            created = RequestCreated(
                content=request.content, agent=request.agent, principal=principal, metadata=request.metadata
            )
            await outbox.publish(tx, new_event("request-manager", REQUEST_CREATED, created, context))
            if request.cancel_asked:
                wish = RequestCancelled(principal=principal)
                await outbox.publish(tx, new_event("request-manager", REQUEST_CANCELLED, wish, context))
    metrics.REQUESTS_ASKED_AGAIN.inc(len(silent))
    _report(silent)
    return len(silent)


async def balance_requests(database: Database, silence: timedelta = SILENCE) -> None:
    """Count what was accepted, what has ended and what is pending, and say so loudly when it does not add up."""
    balance = await queries.count_requests(database, silence)
    for state in ("accepted", "terminal", "pending", "overdue", "unaccounted"):
        metrics.REQUESTS.labels(state).set(getattr(balance, state))
    if balance.unaccounted:
        log.error("requests_unaccounted", accepted=balance.accepted, found=balance.terminal + balance.pending)
    if balance.overdue:
        log.error("requests_overdue", requests=balance.overdue, then="they are asked about until they end")


def _report(silent: Sequence[SilentRequest]) -> None:
    for request in silent:
        log.warning("request_asked_about", request_id=str(request.request_id), turn=request.turn)

"""The workers door: every loop of request-manager starts here."""

from datetime import timedelta

from durable_work.audit.sealing import SEAL_SECONDS, Sealer
from durable_work.dead_letters import DeadLetters
from durable_work.inbox import Inbox
from durable_work.outbox import Outbox
from request_manager.queries import accepting, reconciling
from request_manager.usecases.limit_pending import COUNT_SECONDS, PendingLimit
from request_manager.usecases.reconcile_requests import balance_requests, reconcile_requests
from shared_clients.loops import Tasks, every
from shared_clients.postgres import Database


def start(
    tasks: Tasks,
    database: Database,
    outbox: Outbox,
    inbox: Inbox,
    *,
    letters: DeadLetters,
    pending_limit: PendingLimit,
    key_lifetime: timedelta,
) -> None:
    """Start every loop of the service."""
    tasks.start("retry parked events", every(1.0, inbox.retry))
    tasks.start("forget events", every(600.0, inbox.delete_expired_events))
    tasks.start("count pending requests", every(COUNT_SECONDS, pending_limit.measure))
    tasks.start("sweep outbox", every(1.0, outbox.sweep))
    tasks.start("seal audit entries", every(SEAL_SECONDS, Sealer(database).seal))
    tasks.start("count dead letters", every(15.0, letters.count))
    tasks.start("reconcile requests", every(5.0, lambda: reconcile_requests(database, outbox)))
    tasks.start("balance requests", every(60.0, lambda: balance_requests(database)))
    tasks.start("delete settled inquiries", every(600.0, lambda: reconciling.delete_settled_inquiries(database)))
    tasks.start(
        "delete expired idempotency keys", every(600.0, lambda: accepting.delete_expired_keys(database, key_lifetime))
    )

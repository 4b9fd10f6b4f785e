"""The workers door: the loops of request-manager beside those that every service has."""

from collections.abc import Mapping
from datetime import timedelta

from durable_work.outbox import Outbox
from request_manager.queries import accepting, reconciling
from request_manager.usecases.limit_pending import COUNT_SECONDS, PendingLimit
from request_manager.usecases.reconcile_requests import balance_requests, reconcile_requests
from shared_clients.loops import Loop, every
from shared_clients.postgres import Database


def loops(
    database: Database, outbox: Outbox, pending_limit: PendingLimit, key_lifetime: timedelta
) -> Mapping[str, Loop]:
    """Return the service's own loops by name."""
    return {
        "count pending requests": every(COUNT_SECONDS, pending_limit.measure),
        "reconcile requests": every(5.0, lambda: reconcile_requests(database, outbox)),
        "balance requests": every(60.0, lambda: balance_requests(database)),
        "delete settled inquiries": every(600.0, lambda: reconciling.delete_settled_inquiries(database)),
        "delete expired idempotency keys": every(600.0, lambda: accepting.delete_expired_keys(database, key_lifetime)),
    }

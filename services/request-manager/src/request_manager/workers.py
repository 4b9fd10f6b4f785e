"""The workers door: the loops of request-manager, all started here."""

from datetime import timedelta

from durable_work.inbox import Inbox
from durable_work.outbox import Outbox
from request_manager import queries
from shared_clients.postgres import Database
from shared_clients.process import Tasks, every


def start(tasks: Tasks, database: Database, outbox: Outbox, inbox: Inbox, *, keys_live: timedelta) -> None:
    """Start every loop of the service."""
    tasks.start("retry parked events", every(1.0, inbox.retry))
    tasks.start("forget events", every(600.0, inbox.forget))
    tasks.start("sweep outbox", every(1.0, outbox.sweep))
    tasks.start("forget idempotency keys", every(600.0, lambda: queries.forget_keys(database, keys_live)))

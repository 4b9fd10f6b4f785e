"""The workers door: the loops of request-manager, all started here."""

from datetime import timedelta

from durable_work.audit.sealing import SEAL_SECONDS, Sealer
from durable_work.dead_letters import DeadLetters
from durable_work.inbox import Inbox
from durable_work.outbox import Outbox
from request_manager import queries
from request_manager.usecases.keep_room import COUNT_SECONDS, Room
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
    room: Room,
    keys_live: timedelta,
) -> None:
    """Start every loop of the service."""
    tasks.start("retry parked events", every(1.0, inbox.retry))
    tasks.start("forget events", every(600.0, inbox.delete_expired_events))
    tasks.start("count pending requests", every(COUNT_SECONDS, room.count))
    tasks.start("sweep outbox", every(1.0, outbox.sweep))
    tasks.start("seal audit entries", every(SEAL_SECONDS, Sealer(database).seal))
    tasks.start("count dead letters", every(15.0, letters.count))
    tasks.start("reconcile requests", every(5.0, lambda: reconcile_requests(database, outbox)))
    tasks.start("balance requests", every(60.0, lambda: balance_requests(database)))
    tasks.start("forget inquiries", every(600.0, lambda: queries.forget_inquiries(database)))
    tasks.start("forget idempotency keys", every(600.0, lambda: queries.forget_keys(database, keys_live)))

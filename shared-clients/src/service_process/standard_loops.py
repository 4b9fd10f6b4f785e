"""The background loops that every service has, by name; a service adds only its own.

A loop is here where more than one service needs it. What a loop does belongs to `durable_work`; how often it does it is
said here, once for the whole fleet.
"""

from collections.abc import Collection

from durable_work.audit.sealing import SEAL_SECONDS, Sealer
from durable_work.dead_letters import DeadLetters
from durable_work.inbox import Inbox
from durable_work.jobs import RENEW_SECONDS, ClaimJobs, Job, JobTable, Slots, WorkerLease, run_slots
from durable_work.outbox import Outbox
from shared_clients.loops import Loop, every
from shared_clients.postgres import Database

RETENTION_SECONDS = 600.0
"""The pause between two deletions of rows whose time is over."""
PROMOTE_SECONDS = 0.5
"""The longest time that a delayed job waits after it is due."""


def database_loops(database: Database) -> dict[str, Loop]:
    """Return the loops of every service with a schema."""
    return {"seal audit entries": every(SEAL_SECONDS, Sealer(database).seal)}


def event_loops(outbox: Outbox, inbox: Inbox, letters: DeadLetters) -> dict[str, Loop]:
    """Return the loops of every service that exchanges events."""
    return {
        "sweep outbox": every(1.0, outbox.sweep),
        "retry parked events": every(1.0, inbox.retry),
        "forget events": every(RETENTION_SECONDS, inbox.delete_expired_events),
        "count dead letters": every(15.0, letters.count),
    }


def lease_loops(lease: WorkerLease) -> dict[str, Loop]:
    """Return the loops of every service that works on jobs, one lease for all its tables."""
    return {
        "renew lease": every(RENEW_SECONDS, lease.renew),
        "delete unused leases": every(RETENTION_SECONDS, lease.delete_unused),
    }


def slots_loops[Work: Job](
    database: Database, tables: Collection[JobTable], slots: Slots[Work], claim: ClaimJobs[Work]
) -> dict[str, Loop]:
    """Return the loops of the slots for jobs of some tables.

    Args:
        database: the service's schema.
        tables: the job tables of these slots.
        slots: where the jobs are done.
        claim: takes jobs for free slots.
    """
    names = " and ".join(table.name for table in tables)

    async def promote() -> None:
        async with database.autocommit() as tx:
            promoted = [await table.promote(tx) for table in tables]
        if any(promoted):
            slots.wake()

    return {
        f"make due {names} ready": every(PROMOTE_SECONDS, promote),
        f"run slots of {names}": lambda: run_slots(slots, claim),
    }

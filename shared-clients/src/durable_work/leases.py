"""Leases of worker processes, and the slots in which a process does its work.

This module renews one lease for each worker process and runs the loop that claims work. A service's `queries.py`
selects the next work, and writes the worker's id and a higher epoch on it. The database's clock alone decides whether a
lease has expired. Work of an expired lease is claimed under the next epoch; every later write of its old owner carries
the old epoch and is refused (fencing).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

import structlog

from durable_work import metrics
from shared_clients.errors import Transient
from shared_clients.postgres import Database, sql
from shared_models.ids import new_id

log = structlog.get_logger()

LEASE_SECONDS: Final = 3.0
RENEW_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.2
MAX_CLAIM: Final = 8
"""Pieces of work that one claim takes at most."""

EXPIRED: Final = """
    NOT EXISTS (SELECT FROM worker_leases l WHERE l.worker = {worker} AND l.expires_at > now())
    AND pg_postmaster_start_time() < now() - interval '3 seconds'
"""
"""The predicate for claiming another worker's work: the worker has no valid lease, and Postgres is up for 3 seconds.

A database that has just started gives every worker a whole lease to renew, so that an outage does not restart all
work."""

RENEW_LEASE = sql("""
    INSERT INTO worker_leases (worker, expires_at) VALUES (:worker, now() + interval '3 seconds')
    ON CONFLICT (worker) DO UPDATE SET expires_at = excluded.expires_at
""")
DELETE_LEASE = sql("DELETE FROM worker_leases WHERE worker = :worker")
DELETE_EXPIRED_LEASES = sql("DELETE FROM worker_leases WHERE expires_at < now() - interval '1 hour'")


class WorkerLease:
    """This process's lease in one schema, under a worker id of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.worker: UUID = new_id()
        self._alive_until = 0.0

    @property
    def alive(self) -> bool:
        """Whether the lease is surely valid; by this process's clock it ends before the database lets it expire."""
        return asyncio.get_running_loop().time() < self._alive_until

    async def renew(self) -> None:
        """Extend the lease by `LEASE_SECONDS`; a failure is logged, and the next call tries again.

        It is to be called every `RENEW_SECONDS`.
        """
        started = asyncio.get_running_loop().time()
        try:
            async with self._database.autocommit() as tx:
                await tx.run(RENEW_LEASE, worker=self.worker)
        except Transient as error:
            metrics.LEASE_RENEWALS.labels("failed").inc()
            log.warning("lease_not_renewed", error=str(error))
            return
        metrics.LEASE_RENEWALS.labels("renewed").inc()
        if not self._alive_until:
            log.info("lease_taken", worker=str(self.worker))  # tells which process a worker id in the tables belongs to
        self._alive_until = started + LEASE_SECONDS

    async def release(self) -> None:
        """Give the lease up, so that other workers may claim its work at once."""
        self._alive_until = 0.0
        async with self._database.autocommit() as tx:
            await tx.run(DELETE_LEASE, worker=self.worker)
            await tx.run(DELETE_EXPIRED_LEASES)


class Slots[Work]:
    """A bounded number of slots, each of which performs one piece of work at a time.

    Args:
        count: the number of slots.
        perform: performs one piece of work, and handles the failures of it.
        lease: the worker's lease; no slot is reserved while it may have expired.
    """

    def __init__(self, count: int, perform: Callable[[Work], Awaitable[None]], lease: WorkerLease) -> None:
        self.worker = lease.worker
        self._free = count
        self._perform = perform
        self._lease = lease
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._closed = False
        self._reservation_refused = False

    def reserve(self, count: int = 1) -> int:
        """Reserve up to `count` free slots, and return how many; each needs `start` or `release` afterwards."""
        if self._closed or not self._lease.alive:
            return 0
        reserved = min(count, self._free)
        self._free -= reserved
        self._reservation_refused = self._reservation_refused or reserved == 0
        return reserved

    def release(self, count: int = 1) -> None:
        """Free reserved slots, and wake the claiming loop if a reservation found no free slot meanwhile."""
        self._free += count
        if self._reservation_refused:
            self._reservation_refused = False
            self._wake.set()

    def start(self, work: Work) -> None:
        """Perform a piece of work in a reserved slot."""
        task = asyncio.get_running_loop().create_task(self._perform_one(work))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def wake(self) -> None:
        """End the pause of the claiming loop, because work may have become ready."""
        self._wake.set()

    async def wait(self) -> None:
        """Wait for a wake-up, or for the time of the next poll, which is jittered."""
        try:
            async with asyncio.timeout(POLL_SECONDS * (0.75 + random.random() / 2)):  # noqa: S311 - jitter, no secret
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._wake.clear()

    async def close(self) -> None:
        """Refuse all reservations from now on, and cancel the running work, which has to hand itself back."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _perform_one(self, work: Work) -> None:
        await self._perform(work)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.release()
        self.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work_crashed", exc_info=error)


async def run_slots[Work](slots: Slots[Work], claim: Callable[[int], Awaitable[Sequence[Work]]]) -> None:
    """Claim work for the free slots and start it, again after every wake-up and every poll, for ever.

    Args:
        slots: the slots to keep busy.
        claim: claims at most the given number of pieces from the service's tables, under this worker and the next
            epoch.
    """
    while True:
        free = slots.reserve(MAX_CLAIM)
        if free:
            claimed: Sequence[Work] = ()
            try:
                claimed = await claim(free)
            except Transient as error:
                log.warning("claim_failed", error=str(error))
            finally:
                slots.release(free - len(claimed))
            for work in claimed:
                slots.start(work)
        await slots.wait()

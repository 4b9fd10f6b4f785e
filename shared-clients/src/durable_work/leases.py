"""Who is alive, and who may work: one lease per worker process, and the slots it works in.

A service's `queries.py` says what work comes next and puts the worker's id and a rising epoch on it; this module keeps
the worker's lease and runs the loop. Only the database's clock counts. A claim that finds an expired lease goes on with
the work under the next epoch; every write of the old owner carries the old epoch and is refused (fencing).
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

EXPIRED: Final = """
    NOT EXISTS (SELECT FROM worker_leases l WHERE l.worker = {worker} AND l.expires_at > now())
    AND pg_postmaster_start_time() < now() - interval '3 seconds'
"""
"""The predicate of a claim on somebody else's work. A database that has just come up gives every worker a whole lease
to renew first, so that an outage does not make all work start again."""

RENEW = sql("""
    INSERT INTO worker_leases (worker, expires_at) VALUES (:worker, now() + interval '3 seconds')
    ON CONFLICT (worker) DO UPDATE SET expires_at = excluded.expires_at
""")
RELEASE = sql("DELETE FROM worker_leases WHERE worker = :worker")
FORGET = sql("DELETE FROM worker_leases WHERE expires_at < now() - interval '1 hour'")


class WorkerLease:
    """This process's sign of life in one schema."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.worker: UUID = new_id()
        self._alive_until = 0.0

    @property
    def alive(self) -> bool:
        """Whether the lease cannot have run out, by the monotonic clock here: its no comes early, never late."""
        return asyncio.get_running_loop().time() < self._alive_until

    async def renew(self) -> None:
        """Extend the lease; call it every `RENEW_SECONDS`."""
        asked = asyncio.get_running_loop().time()
        try:
            async with self._database.autocommit() as tx:
                await tx.run(RENEW, worker=self.worker)
        except Transient as error:
            metrics.LEASE_RENEWALS.labels("failed").inc()
            log.warning("lease_not_renewed", error=str(error))
            return
        metrics.LEASE_RENEWALS.labels("renewed").inc()
        if not self._alive_until:
            log.info("lease_taken", worker=str(self.worker))  # which process a worker in the tables is
        self._alive_until = asked + LEASE_SECONDS

    async def release(self) -> None:
        """Give the lease up: others may go on with the work at once."""
        self._alive_until = 0.0
        async with self._database.autocommit() as tx:
            await tx.run(RELEASE, worker=self.worker)
            await tx.run(FORGET)


class Slots[Work]:
    """The places in which this process works, and what is being done in them.

    Args:
        count: how many pieces of work go on at once.
        perform: does one; it handles its own failures.
        lease: no slot is given away while it may have run out.
    """

    def __init__(self, count: int, perform: Callable[[Work], Awaitable[None]], lease: WorkerLease) -> None:
        self.worker = lease.worker
        self._free = count
        self._perform = perform
        self._lease = lease
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._closed = False
        self._refused = False

    def reserve(self, most: int = 1) -> int:
        """Take up to `most` free slots, and return how many were taken; `start` or `give_back` each."""
        if self._closed or not self._lease.alive:
            return 0
        taken = min(most, self._free)
        self._free -= taken
        self._refused = self._refused or taken == 0
        return taken

    def give_back(self, count: int = 1) -> None:
        """Free slots that were not needed; look for work if somebody found none free meanwhile."""
        self._free += count
        if self._refused:
            self._refused = False
            self._wake.set()

    def start(self, work: Work) -> None:
        """Begin work in a reserved slot."""
        task = asyncio.get_running_loop().create_task(self._perform_one(work))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def wake(self) -> None:
        """Look for work now: some may have become ready."""
        self._wake.set()

    async def woken(self) -> None:
        """Wait for a wake-up or, jittered, for the next poll."""
        try:
            async with asyncio.timeout(POLL_SECONDS * (0.75 + random.random() / 2)):  # noqa: S311 - jitter, no secret
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._wake.clear()

    async def close(self) -> None:
        """Take no more work, and cancel what goes on: each piece hands itself back."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _perform_one(self, work: Work) -> None:
        await self._perform(work)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.give_back()
        self.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work_crashed", exc_info=error)


async def run_slots[Work](slots: Slots[Work], claim: Callable[[int], Awaitable[Sequence[Work]]]) -> None:
    """Keep the slots busy, for ever: claim as much as is free, start it, wait for a wake-up or the next poll.

    Args:
        slots: where the work is done.
        claim: takes at most that many pieces from the service's own tables, under this worker and the next epoch.
    """
    while True:
        free = slots.reserve(most=8)
        if free:
            found: Sequence[Work] = ()
            try:
                found = await claim(free)
            except Transient as error:
                log.warning("claim_failed", error=str(error))
            finally:
                slots.give_back(free - len(found))
            for work in found:
                slots.start(work)
        await slots.woken()

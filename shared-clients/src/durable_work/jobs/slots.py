"""Slots: the jobs that this process works on side by side, and the loop that claims more when slots are free."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from time import monotonic
from typing import Final, Protocol

import structlog

from durable_work.jobs.leases import WorkerLease
from shared_clients.errors import Unconfirmed

log = structlog.get_logger()

POLL_SECONDS: Final = 0.2
CLAIM_BATCH: Final = 8
"""Jobs of one claim at most."""
FAIR_SHARE_SECONDS: Final = 60.0
"""For this long after a job of a second tenant, no tenant may use all slots."""


class Job(Protocol):
    """The part of a claimed job that `Slots` needs."""

    @property
    def tenant(self) -> str: ...


class Slots[Work: Job]:
    """The slots of this process.

    Args:
        count: jobs that go on at once.
        perform: does one job, and handles its own failures.
        lease: no slot is given away while the lease may have run out.
    """

    def __init__(self, count: int, perform: Callable[[Work], Awaitable[None]], lease: WorkerLease) -> None:
        self.worker = lease.worker
        self._count = count
        self._free = count
        self._perform = perform
        self._lease = lease
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_by_tenant = Counter[str]()
        self._several_tenants_until = 0.0
        self._last_tenant = ""
        self._wake = asyncio.Event()
        self._closed = False
        self._was_refused = False

    def reserve(self, most: int = 1) -> int:
        """Take up to `most` free slots, and return how many were taken; `start` or `release` each of them."""
        if self._closed or not self._lease.alive:
            return 0
        taken = min(most, self._free)
        self._free -= taken
        self._was_refused = self._was_refused or taken == 0
        return taken

    def reserve_for(self, tenant: str) -> bool:
        """Take one free slot for a tenant; return False where none is free, or the tenant holds its maximum."""
        self._note_tenant(tenant)
        return tenant not in self.tenants_at_limit() and self.reserve() == 1

    def release(self, count: int = 1) -> None:
        """Give back reserved slots; look for jobs if a reservation was refused meanwhile."""
        self._free += count
        if self._was_refused:
            self._was_refused = False
            self._wake.set()

    def start(self, work: Work) -> None:
        """Begin a job in a reserved slot."""
        self._note_tenant(work.tenant)
        self._held_by_tenant[work.tenant] += 1
        task = asyncio.get_running_loop().create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def tenants_at_limit(self) -> Collection[str]:
        """Return the tenants that hold their maximum of seven eighths of the slots; none while one tenant is alone."""
        if monotonic() > self._several_tenants_until:
            return ()
        share = self._count - max(1, self._count // 8) if self._count > 1 else 1
        return [tenant for tenant, held in self._held_by_tenant.items() if held >= share]

    def wake(self) -> None:
        """Look for jobs now, because some may have become ready."""
        self._wake.set()

    async def wait(self) -> None:
        """Wait for a wake-up or, jittered, for the next poll."""
        try:
            async with asyncio.timeout(POLL_SECONDS * (0.75 + random.random() / 2)):  # noqa: S311 - jitter, no secret
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._wake.clear()

    async def close(self) -> None:
        """Take no more jobs, and cancel those that go on: each hands itself back."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _note_tenant(self, tenant: str) -> None:
        if self._last_tenant and tenant != self._last_tenant:
            self._several_tenants_until = monotonic() + FAIR_SHARE_SECONDS
        self._last_tenant = tenant

    async def _run(self, work: Work) -> None:
        try:
            await self._perform(work)
        finally:
            self._held_by_tenant[work.tenant] -= 1
            if not self._held_by_tenant[work.tenant]:
                del self._held_by_tenant[work.tenant]

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.release()
        self.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("job_crashed", exc_info=error)


type ClaimJobs[Work: Job] = Callable[[int, str, Collection[str]], Awaitable[Sequence[Work]]]
"""Called with (most, after, full): claims up to `most` jobs, from the tenant behind `after` on, of none in `full`."""


async def run_slots[Work: Job](slots: Slots[Work], claim: ClaimJobs[Work]) -> None:
    """Claim a job for each free slot and start it, then wait for a wake-up or the next poll, for ever.

    Args:
        slots: where the jobs are done.
        claim: takes jobs from the service's table, under this worker and the next epoch.
    """
    after = ""
    while True:
        free = slots.reserve(most=CLAIM_BATCH)
        if free:
            claimed: Sequence[Work] = ()
            try:
                claimed = await claim(free, after, slots.tenants_at_limit())
            except Unconfirmed as error:
                log.warning("claim_failed", error=str(error))
            finally:
                slots.release(free - len(claimed))
            for work in claimed:
                slots.start(work)
            after = _last_probed(claimed, after)
            if len(claimed) == free:
                continue  # more may be ready, and a slot may be free
        await slots.wait()


def _last_probed(claimed: Sequence[Job], after: str) -> str:
    """Return the tenant behind which the next claim begins: claims probe tenants after `after`, then from the first."""
    return max((work.tenant for work in claimed), key=lambda tenant: (tenant <= after, tenant), default=after)

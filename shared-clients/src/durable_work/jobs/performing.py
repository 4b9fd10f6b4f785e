"""Performing jobs: stop cancelled ones, find orphaned ones, and repeat a write until it is stored."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from uuid import UUID

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from durable_work.jobs.statements import Claim
from shared_clients.errors import Unconfirmed


class ActiveJobs[Reason]:
    """The jobs in progress in this process, by key and epoch, each with the future that stops it."""

    def __init__(self) -> None:
        self._stops: dict[tuple[UUID, int], asyncio.Future[Reason]] = {}
        self._idle: frozenset[tuple[UUID, int]] = frozenset()

    @contextmanager
    def working_on(self, key: UUID, epoch: int) -> Iterator[asyncio.Future[Reason]]:
        """Enter a job as in progress, and yield the future that gets the reason to stop it early."""
        stop: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._stops[key, epoch] = stop
        try:
            yield stop
        finally:
            del self._stops[key, epoch]

    def stop(self, key: UUID, epoch: int, reason: Reason) -> None:
        """Stop a job, if it is in progress here and was not stopped before."""
        stop = self._stops.get((key, epoch))
        if stop is not None and not stop.done():
            stop.set_result(reason)

    def orphaned(self, held: Collection[Claim]) -> list[Claim]:
        """Return the jobs that the table assigns to this worker and that were idle here in two successive calls.

        The caller has to hand such a job back: the answer to its claim was lost, or a bug has ended its work.
        """
        idle = {(claim.key, claim.epoch): claim for claim in held if (claim.key, claim.epoch) not in self._stops}
        orphaned = [claim for job, claim in idle.items() if job in self._idle]
        self._idle = frozenset(idle)
        return orphaned


async def until_stored[T](store: Callable[[], Awaitable[T]]) -> T:
    """Repeat one write while the database is away, for work that is done must not be lost.

    The write has to be idempotent: an attempt whose answer was lost may have been stored. It ends with success, or with
    the error `Stale` once the database is back and another worker holds the job.
    """
    pause = wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05)
    async for attempt in AsyncRetrying(retry=retry_if_exception_type(Unconfirmed), wait=pause, reraise=True):
        with attempt:
            return await store()
    raise AssertionError("retrying ends with a result or an error")

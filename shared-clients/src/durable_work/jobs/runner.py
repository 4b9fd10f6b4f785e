"""One type of job from its claim to its end, with a pause before each retry; a service says only what the job does.

`JobType` holds the service's four functions. The runner calls `perform` outside of any transaction, because it may take
minutes. It then stores the end in one transaction: the fence of the claim, and whatever `done` or `failed` write, such
as a row and an event. A worker that lost its claim stores nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import RowMapping

from durable_work import metrics
from durable_work.jobs.performing import ActiveJobs, until_stored
from durable_work.jobs.statements import Claim, ClaimedJob, JobTable
from shared_clients.errors import Permanent, Stale, Unconfirmed
from shared_clients.postgres import Database, Tx

log = structlog.get_logger()

MAX_REASON: Final = 1000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed job is tried again.

    Attributes:
        tries: claims without progress after which a failure is final.
        first: seconds before the second try; the pause doubles with each further one.
        longest: seconds before any try, at most.
    """

    tries: int = 8
    first: float = 1.0
    longest: float = 300.0

    def pause(self, tries: int) -> float:
        """Return the seconds to wait after that many tries."""
        return min(self.longest, self.first * 2.0 ** min(tries - 1, 30))


@dataclass(frozen=True, slots=True)
class JobType[Work: ClaimedJob, Result]:
    """One kind of job.

    Attributes:
        table: the job table.
        read: makes the job of the columns that a claim returns.
        perform: does the job. It is called again after a failure or a crash, so it has to be safe to repeat. It raises
            `Transient` or `Unknown` for a failure that may pass, and `Permanent` for one that will not.
        done: writes the result, in the transaction that ends the job.
        failed: writes the failure and its reason, in the transaction that gives the job up.
        retry: when a failed job is tried again.
    """

    table: JobTable
    read: Callable[[RowMapping], Work]
    perform: Callable[[Work], Awaitable[Result]]
    done: Callable[[Tx, Work, Result], Awaitable[None]]
    failed: Callable[[Tx, Work, str], Awaitable[None]]
    retry: RetryPolicy = RetryPolicy()


class JobRunner[Work: ClaimedJob, Result]:
    """Claims and performs the jobs of one type in this process."""

    def __init__(self, database: Database, job_type: JobType[Work, Result]) -> None:
        self._database = database
        self._type = job_type
        self._active = ActiveJobs[str]()

    async def claim(self, worker: UUID, most: int, after: str, full: Collection[str]) -> Sequence[Work]:
        """Claim up to `most` jobs; see `JobTable.claim`."""
        async with self._database.transaction() as tx:
            rows = await self._type.table.claim(tx, worker, most, after=after, full=full)
        return [self._type.read(row) for row in rows]

    async def perform(self, work: Work) -> None:
        """Do one job and store its end, or delay it, or give it up; a drain hands it back."""
        claim = work.claim
        with self._active.working_on(claim.key, claim.epoch):
            try:
                await self._try(work)
            except Stale:
                self._count("lost")
                log.warning("job_lost", table=self._type.table.name, job=str(claim.key), epoch=claim.epoch)
            except asyncio.CancelledError:
                await self._hand_back(claim)
                raise

    async def retry_orphaned(self, worker: UUID) -> None:
        """Delay the jobs that the table assigns to this worker and that a bug or a lost answer left idle."""
        async with self._database.autocommit() as tx:
            orphaned = self._active.orphaned(await self._type.table.held(tx, worker))
            for claim in orphaned:
                log.warning("job_orphaned", table=self._type.table.name, job=str(claim.key), tries=claim.tries)
                await self._type.table.retry_later(tx, claim, self._type.retry.pause(claim.tries))

    async def _try(self, work: Work) -> None:
        """Do the job once, and store what follows.

        Raises:
            Stale: another worker has claimed the job; nothing was written.
        """
        try:
            result = await self._type.perform(work)
            await until_stored(lambda: self._end(work, lambda tx: self._type.done(tx, work, result)))
            self._count("done")
        except Unconfirmed as error:
            await self._retry(work, str(error))
        except Permanent as error:
            await self._give_up(work, str(error))

    async def _end(self, work: Work, write: Callable[[Tx], Awaitable[None]]) -> None:
        """End a job and write its result, or its failure, in one transaction.

        Raises:
            Stale: another worker has claimed the job; nothing was written.
        """
        async with self._database.transaction() as tx:
            if not await self._type.table.finish(tx, work.claim):
                raise Stale(f"job {work.claim.key} is no longer held under epoch {work.claim.epoch}")
            await write(tx)

    async def _retry(self, work: Work, reason: str) -> None:
        claim = work.claim
        if claim.tries >= self._type.retry.tries:
            await self._give_up(work, reason)
            return
        pause = self._type.retry.pause(claim.tries)
        log.warning("job_delayed", table=self._type.table.name, job=str(claim.key), tries=claim.tries, pause=pause)

        async def delay() -> bool:
            async with self._database.autocommit() as tx:
                return await self._type.table.retry_later(tx, claim, pause)

        await until_stored(delay)
        self._count("delayed")

    async def _give_up(self, work: Work, reason: str) -> None:
        log.error("job_given_up", table=self._type.table.name, job=str(work.claim.key), tries=work.claim.tries)
        await until_stored(lambda: self._end(work, lambda tx: self._type.failed(tx, work, reason[:MAX_REASON])))
        self._count("failed")

    async def _hand_back(self, claim: Claim) -> None:
        try:
            async with self._database.autocommit() as tx:
                await self._type.table.hand_back(tx, claim)
        except Unconfirmed as error:
            log.warning("job_left_to_lease", table=self._type.table.name, job=str(claim.key), error=str(error))
        else:
            self._count("handed back")

    def _count(self, outcome: str) -> None:
        metrics.JOBS.labels(self._type.table.name, outcome).inc()

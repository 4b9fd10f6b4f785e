"""Claim runs that may start, or whose worker died."""

from collections.abc import Collection, Sequence
from uuid import UUID

from agent_service.domain.runs import ClaimedRun
from agent_service.queries import runs as queries
from agent_service.usecases.queue_run import announce_running
from durable_work.outbox import Outbox
from shared_clients.postgres import Database


async def claim_runs(
    database: Database, outbox: Outbox, worker: UUID, most: int, *, after: str = "", full: Collection[str] = ()
) -> Sequence[ClaimedRun]:
    """Claim up to `most` runs under the next epoch, and publish that they are running.

    The claim begins behind the tenant `after`, and leaves out the tenants in `full`.
    """
    async with database.transaction() as tx:
        claimed = await queries.claim_runs(tx, worker, most, after=after, full=full)
        for run in claimed:
            await announce_running(tx, outbox, run)
    return claimed

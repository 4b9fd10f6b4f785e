"""Leases: the sign of life of one worker process, by the database's clock alone.

A worker writes its lease before its first claim and renews it every second. When the lease has run out, any claim may
take over the worker's jobs under the next epoch. A lease row stays for as long as a job names its worker, so that no
job of a dead worker is forgotten.
"""

import asyncio
from collections.abc import Iterable
from typing import Final
from uuid import UUID

import structlog

from durable_work import metrics
from durable_work.jobs.statements import JobTable
from shared_clients.errors import Unconfirmed
from shared_clients.postgres import Database, sql
from shared_models.ids import new_id

log = structlog.get_logger()

LEASE_SECONDS: Final = 3.0
RENEW_SECONDS: Final = 1.0

RENEW = sql("""
    INSERT INTO worker_leases (worker, expires_at) VALUES (:worker, now() + interval '3 seconds')
    ON CONFLICT (worker) DO UPDATE SET expires_at = excluded.expires_at
""")
DELETE_UNUSED: Final = "DELETE FROM worker_leases l WHERE l.expires_at < now() - interval '1 hour'"
EXPIRE = sql("UPDATE worker_leases SET expires_at = '-infinity' WHERE worker = :worker")


class WorkerLease:
    """The lease of this process in one schema.

    Args:
        database: the service's schema.
        tables: the service's job tables, whose rows may name a worker.
    """

    def __init__(self, database: Database, tables: Iterable[JobTable]) -> None:
        self._database = database
        self._delete_unused = sql(DELETE_UNUSED + "".join(table.not_referenced("l.worker") for table in tables))
        self.worker: UUID = new_id()
        self._alive_until = 0.0

    @property
    def alive(self) -> bool:
        """Whether the lease is certainly still valid, by the monotonic clock of this process."""
        return asyncio.get_running_loop().time() < self._alive_until

    async def renew(self) -> None:
        """Extend the lease; to be called every `RENEW_SECONDS`."""
        asked_at = asyncio.get_running_loop().time()
        try:
            async with self._database.autocommit() as tx:
                await tx.run(RENEW, worker=self.worker)
        except Unconfirmed as error:
            metrics.LEASE_RENEWALS.labels("failed").inc()
            log.warning("lease_not_renewed", error=str(error))
            return
        metrics.LEASE_RENEWALS.labels("renewed").inc()
        if not self._alive_until:
            log.info("lease_taken", worker=str(self.worker))  # tells which process has this worker id
        self._alive_until = asked_at + LEASE_SECONDS

    async def release(self) -> None:
        """Let the lease expire now, so that other workers take over at once."""
        self._alive_until = 0.0
        async with self._database.autocommit() as tx:
            await tx.run(EXPIRE, worker=self.worker)

    async def delete_unused(self) -> int:
        """Delete leases that ran out an hour ago and that no job names, and return how many."""
        async with self._database.autocommit() as tx:
            return await tx.run(self._delete_unused)

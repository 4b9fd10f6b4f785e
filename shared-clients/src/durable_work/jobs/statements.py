"""The SQL of jobs, made for a table that a service owns.

The table has these columns beside the service's own:

    tenant    text         the organisation
    <key>     uuid         the job; (tenant, key) is unique
    ready_at  timestamptz  when the job became ready; null while it is blocked, waiting, delayed or claimed
    due_at    timestamptz  when a delayed job becomes ready; null otherwise
    worker    uuid         the worker that holds the job; null while no worker does
    epoch     bigint       rises with each claim; every later write of the worker carries it (fencing)
    tries     integer      claims since the job last made progress

and the three partial indexes of `indexes`. A claim takes over the jobs of dead workers first. Then it probes a bounded
number of tenants, beginning behind the tenant at which the last claim ended, and takes the oldest ready jobs of each in
equal parts. So a tenant with ten thousand jobs delays another tenant's first job only until the next slot is free.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import RowMapping

from shared_clients.postgres import Tx, sql

PROBED_TENANTS: Final = 16
"""Tenants that one claim looks at; each costs one descent of an index."""
PROMOTE_BATCH: Final = 200
"""Due jobs that one `promote` makes ready at most."""

EXPIRED: Final = """
    l.expires_at <= now() AND pg_postmaster_start_time() < now() - interval '3 seconds'
"""
"""After a start of the database no lease counts as expired for one lease time, so an outage moves no job."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One claimed job.

    Attributes:
        tenant: the organisation that the job belongs to.
        key: the job's id.
        epoch: the epoch under which this worker holds the job.
        tries: claims since the job last made progress, this one included.
    """

    tenant: str
    key: UUID
    epoch: int
    tries: int


class JobTable:
    """The statements over one job table.

    Args:
        name: the table.
        key: its uuid column.
        progressed: SQL over the row `j` that is true where the last claim made progress; then tries begin at 1 again.
        claimed: columns that a claim sets besides, as SQL over the row `j`, such as `status = 'running'`.
        handed_back: columns that a hand-back and a retry set besides.
        returning: columns that a claim returns, as SQL over the row `j`; by default those of `Claim`.
    """

    def __init__(
        self,
        name: str,
        key: str,
        *,
        progressed: str = "false",
        claimed: str = "",
        handed_back: str = "",
        returning: str = "",
    ) -> None:
        self.name = name
        self.key = key
        also_claimed = f", {claimed}" if claimed else ""
        also_back = f", {handed_back}" if handed_back else ""
        self._claim = sql(
            CLAIM.format(
                table=name,
                key=key,
                expired=EXPIRED,
                progressed=progressed,
                also=also_claimed,
                returning=returning or f"j.tenant, j.{key} AS key, j.epoch, j.tries",
            )
        )
        names = {"table": name, "key": key, "also": also_back}
        self._promote = sql(PROMOTE.format(**names))
        self._hand_back = sql(HAND_BACK.format(**names))
        self._retry = sql(RETRY.format(**names))
        self._held = sql(HELD.format(**names))

    def not_referenced(self, worker: str) -> str:
        """Return SQL to add to a condition; it is true where no job of the table names the worker."""
        return f" AND NOT EXISTS (SELECT FROM {self.name} j WHERE j.worker = {worker})"

    def indexes(self) -> tuple[str, ...]:
        """Return the DDL of the indexes that the statements read, for the service's migration."""
        return (
            f"CREATE INDEX {self.name}_ready ON {self.name} (tenant, ready_at) WHERE ready_at IS NOT NULL",
            f"CREATE INDEX {self.name}_due ON {self.name} (due_at) WHERE due_at IS NOT NULL",
            f"CREATE INDEX {self.name}_held ON {self.name} (worker) WHERE worker IS NOT NULL",
        )

    async def claim(
        self, tx: Tx, worker: UUID, most: int, *, after: str, full: Collection[str] = ()
    ) -> Sequence[RowMapping]:
        """Take up to `most` jobs under the next epoch, and return the `returning` columns of each.

        Args:
            tx: a transaction that may see the jobs of all tenants.
            worker: the claiming worker, whose lease is alive.
            most: free slots.
            after: the tenant at which the last claim ended; the probes begin behind it.
            full: tenants that hold their whole share of this worker's slots.
        """
        return await tx.rows(self._claim, worker=worker, most=most, after=after, full=list(full), probes=PROBED_TENANTS)

    async def promote(self, tx: Tx) -> int:
        """Make delayed jobs ready whose time has come, `PROMOTE_BATCH` at most, and return how many."""
        return await tx.run(self._promote, most=PROMOTE_BATCH)

    async def hand_back(self, tx: Tx, claim: Claim, *, unused: bool = True) -> bool:
        """Make a held job ready for another worker; with `unused` the claim does not count as a try."""
        return await tx.run(self._hand_back, **_held_by(claim), unused=int(unused)) == 1

    async def retry_later(self, tx: Tx, claim: Claim, pause: float) -> bool:
        """Delay a held job by `pause` seconds; return False where the claim is stale."""
        return await tx.run(self._retry, **_held_by(claim), pause=timedelta(seconds=pause)) == 1

    async def held(self, tx: Tx, worker: UUID) -> list[Claim]:
        """Return all jobs whose row names the worker."""
        return [Claim(**row) for row in await tx.rows(self._held, worker=worker)]


def _held_by(claim: Claim) -> dict[str, object]:
    return {"tenant": claim.tenant, "key": claim.key, "epoch": claim.epoch}


CLAIM: Final = """
    WITH RECURSIVE abandoned AS MATERIALIZED (
        SELECT j.tenant, j.{key} AS key
        FROM worker_leases l JOIN {table} j ON j.worker = l.worker
        WHERE {expired}
        LIMIT :most FOR UPDATE OF j SKIP LOCKED
    ), ahead AS (
        (SELECT tenant, 1 AS place FROM {table}
         WHERE ready_at IS NOT NULL AND tenant > :after ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT (SELECT j.tenant FROM {table} j
                WHERE j.ready_at IS NOT NULL AND j.tenant > t.tenant ORDER BY j.tenant LIMIT 1), t.place + 1
        FROM ahead t WHERE t.tenant IS NOT NULL AND t.place < :probes
    ), behind AS (
        (SELECT tenant, 1 AS place FROM {table}
         WHERE ready_at IS NOT NULL AND tenant <= :after ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT (SELECT j.tenant FROM {table} j
                WHERE j.ready_at IS NOT NULL AND j.tenant > t.tenant AND j.tenant <= :after
                ORDER BY j.tenant LIMIT 1), t.place + 1
        FROM behind t WHERE t.tenant IS NOT NULL AND t.place < :probes
    ), probed AS MATERIALIZED (
        SELECT tenant, turn FROM (
            SELECT tenant, place AS turn FROM ahead UNION ALL SELECT tenant, place + :probes FROM behind
        ) both_ways
        WHERE tenant IS NOT NULL AND tenant <> ALL (CAST(:full AS text[]))
        ORDER BY turn LIMIT least(:probes, :most)
    ), ready AS MATERIALIZED (
        SELECT oldest.tenant, oldest.key
        FROM probed CROSS JOIN LATERAL (
            SELECT j.tenant, j.{key} AS key FROM {table} j
            WHERE j.tenant = probed.tenant AND j.ready_at IS NOT NULL
            ORDER BY j.ready_at
            LIMIT ceil((:most - (SELECT count(*) FROM abandoned)) / (SELECT count(*) FROM probed)::numeric)
            FOR UPDATE OF j SKIP LOCKED
        ) oldest
        ORDER BY probed.turn
        LIMIT :most - (SELECT count(*) FROM abandoned)
    )
    UPDATE {table} j
    SET worker = :worker, epoch = j.epoch + 1, ready_at = NULL, due_at = NULL,
        tries = CASE WHEN {progressed} THEN 1 ELSE j.tries + 1 END{also}
    FROM (SELECT * FROM abandoned UNION ALL SELECT * FROM ready) taken
    WHERE j.tenant = taken.tenant AND j.{key} = taken.key
    RETURNING {returning}
"""

PROMOTE: Final = """
    UPDATE {table} j SET ready_at = now(), due_at = NULL
    FROM (
        SELECT tenant, {key} FROM {table} WHERE due_at <= now()
        ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED
    ) due
    WHERE j.tenant = due.tenant AND j.{key} = due.{key}
"""

HAND_BACK: Final = """
    UPDATE {table} SET worker = NULL, ready_at = now(), tries = tries - :unused{also}
    WHERE tenant = :tenant AND {key} = :key AND epoch = :epoch AND worker IS NOT NULL
"""

RETRY: Final = """
    UPDATE {table} SET worker = NULL, due_at = now() + CAST(:pause AS interval){also}
    WHERE tenant = :tenant AND {key} = :key AND epoch = :epoch AND worker IS NOT NULL
"""

HELD: Final = "SELECT tenant, {key} AS key, epoch, tries FROM {table} WHERE worker = :worker"

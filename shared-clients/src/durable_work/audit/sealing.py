"""Sealing: committed audit entries get numbers without gaps and are chained by hash, by one sealer per schema.

An entry is sealed once it is visible as committed, in the order in which transactions end. No id or time is used as a
position, so no late entry is skipped.

One replica holds the sealer's lease, by the database's clock. It claims or renews the lease in the transaction that
seals. So the row of the lease is locked from the read of the head to the commit of the new seals. A replica that lost
the lease cannot write. A replica that is stopped in the middle blocks the others only until Postgres ends its idle
transaction. If two replicas wrote all the same, one of them would fail, because numbers and entries are unique among
the seals; a chain never forks.
"""

from typing import Final

import structlog

from durable_work import metrics
from durable_work.audit.recording import ENTRY_COLUMNS, row_of
from shared_clients.postgres import Database, Tx, sql
from shared_models.audit_chain import first_hash, next_hash
from shared_models.ids import new_id

log = structlog.get_logger()

SEAL_SECONDS: Final = 1.0
SEAL_BATCH: Final = 1000
"""Entries that one transaction seals at most; the others wait for the next call."""

CLAIM_LEASE = sql("""
    UPDATE audit_sealer SET holder = :sealer, expires_at = now() + interval '3 seconds'
    WHERE single IN (
        SELECT single FROM audit_sealer WHERE holder = :sealer OR expires_at <= now() FOR UPDATE SKIP LOCKED
    )
""")
SELECT_HEAD = sql("SELECT number, hash FROM audit_seals ORDER BY number DESC LIMIT 1")
LIST_UNSEALED = sql(f"""
    SELECT {ENTRY_COLUMNS} FROM audit_waiting w JOIN audit_entries e USING (id) ORDER BY w.id LIMIT :batch
""")  # noqa: S608 - constants made of constants
INSERT_SEALS = sql("""
    WITH sealed AS (
        INSERT INTO audit_seals (number, entry_id, hash)
        SELECT * FROM unnest(CAST(:numbers AS bigint[]), CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]))
        RETURNING entry_id
    )
    DELETE FROM audit_waiting WHERE id IN (SELECT entry_id FROM sealed)
""")
MEASURE_UNSEALED = sql("""
    SELECT count(*) AS entries, coalesce(extract(epoch FROM now() - min(e.at)), 0) AS oldest_age
    FROM audit_waiting w JOIN audit_entries e USING (id)
""")


class Sealer:
    """The sealer of one schema in this process; every replica has one, and one replica at a time holds the lease."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sealer = new_id()

    async def seal(self) -> int | None:
        """Seal up to `SEAL_BATCH` committed entries, and return how many; None while another replica has the lease."""
        async with self._database.transaction() as tx:
            if await tx.run(CLAIM_LEASE, sealer=self._sealer) == 0:
                return None
            sealed = await self._extend_chain(tx)
            unsealed = await tx.row(MEASURE_UNSEALED)
        assert unsealed is not None
        metrics.AUDIT_UNSEALED.labels(self._database.schema).set(unsealed["entries"])
        metrics.AUDIT_UNSEALED_SECONDS.labels(self._database.schema).set(unsealed["oldest_age"])
        return sealed

    async def _extend_chain(self, tx: Tx) -> int:
        rows = [row_of(row) for row in await tx.rows(LIST_UNSEALED, batch=SEAL_BATCH)]
        if not rows:
            return 0
        head = await tx.row(SELECT_HEAD)
        last_number, last_hash = (head["number"], head["hash"]) if head else (0, first_hash(self._database.schema))
        numbers = list(range(last_number + 1, last_number + 1 + len(rows)))
        hashes = []
        for number, row in zip(numbers, rows, strict=True):
            last_hash = next_hash(last_hash, number, row)
            hashes.append(last_hash)
        await tx.run(INSERT_SEALS, numbers=numbers, ids=[row.id for row in rows], hashes=hashes)
        return len(rows)

"""The sealer: gives committed audit entries gap-free numbers and chains them by hash, one sealer at a time per schema.

An entry is sealed when it is seen committed, in whatever order its transaction ended: nothing is ever skipped by an id
or a time. One replica holds the lease, by the database's clock. It claims or renews it in the transaction that seals,
and so holds the lease's row while it reads the head and writes after it: who has lost the lease cannot write, and who
is stopped in the middle keeps others out only until Postgres ends its idle transaction. Should two write all the same,
the number is the seals' key and the entry unique: one fails, and no chain forks.
"""

from typing import Final

import structlog

from durable_work import metrics
from durable_work.audit.recording import COLUMNS, row_of
from shared_clients.postgres import Database, Tx, sql
from shared_models.audit_chain import first_hash, next_hash
from shared_models.ids import new_id

log = structlog.get_logger()

SEAL_SECONDS: Final = 1.0
BATCH: Final = 1000
"""Entries sealed in one transaction; more wait for the next turn."""

CLAIM = sql("""
    UPDATE audit_sealer SET holder = :me, expires_at = now() + interval '3 seconds'
    WHERE single IN (SELECT single FROM audit_sealer WHERE holder = :me OR expires_at <= now() FOR UPDATE SKIP LOCKED)
""")
HEAD = sql("SELECT number, hash FROM audit_seals ORDER BY number DESC LIMIT 1")
WAITING = sql(f"""
    SELECT {COLUMNS} FROM audit_waiting w JOIN audit_entries e USING (id) ORDER BY w.id LIMIT :batch
""")  # noqa: S608 - constants made of constants
SEAL = sql("""
    WITH sealed AS (
        INSERT INTO audit_seals (number, entry_id, hash)
        SELECT * FROM unnest(CAST(:numbers AS bigint[]), CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]))
        RETURNING entry_id
    )
    DELETE FROM audit_waiting WHERE id IN (SELECT entry_id FROM sealed)
""")
LEFT = sql("""
    SELECT count(*) AS waiting, coalesce(extract(epoch FROM now() - min(e.at)), 0) AS seconds
    FROM audit_waiting w JOIN audit_entries e USING (id)
""")


class Sealer:
    """This process's readiness to seal one schema; any number of processes may have it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._me = new_id()

    async def seal(self) -> int | None:
        """Seal what is visible, `BATCH` entries at most, and return how many; None while another is the sealer."""
        async with self._database.transaction() as tx:
            if await tx.run(CLAIM, me=self._me) == 0:
                return None
            sealed = await self._extend(tx)
            left = await tx.row(LEFT)
        assert left is not None
        metrics.AUDIT_UNSEALED.labels(self._database.schema).set(left["waiting"])
        metrics.AUDIT_UNSEALED_SECONDS.labels(self._database.schema).set(left["seconds"])
        return sealed

    async def _extend(self, tx: Tx) -> int:
        rows = [row_of(row) for row in await tx.rows(WAITING, batch=BATCH)]
        if not rows:
            return 0
        head = await tx.row(HEAD)
        number, last = (head["number"], head["hash"]) if head else (0, first_hash(self._database.schema))
        hashes = []
        for ahead, row in enumerate(rows, start=1):
            last = next_hash(last, number + ahead, row)
            hashes.append(last)
        numbers = list(range(number + 1, number + 1 + len(rows)))
        await tx.run(SEAL, numbers=numbers, ids=[row.id for row in rows], hashes=hashes)
        return len(rows)

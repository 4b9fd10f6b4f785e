"""Verifying: the audit log of a schema is compared with its seals and anchors, to find every change since.

Seals are compared with entries and entries with seals, page by page. A service may write meanwhile: the tables are
append-only, so no snapshot is needed. (A snapshot would keep Postgres from vacuuming.) A report names the limits of its
verdict: entries that wait for a seal, and seals above the last anchor, can be changed unnoticed by access to the
database alone.
"""

from datetime import timedelta
from typing import Final
from uuid import UUID

from pydantic import BaseModel

from durable_work.audit.anchors import Anchored
from durable_work.audit.recording import ENTRY_COLUMNS, row_of
from shared_clients.postgres import Database, Tx, sql
from shared_models.audit_chain import Checker, Fault

PAGE: Final = 2000
MOST_FAULTS: Final = 20
"""Faults of one kind that a report of one chain names."""
MAX_UNANCHORED_AGE: Final = timedelta(minutes=5)
"""The age at which a chain without an anchor is a fault."""
LOWEST_ID: Final = UUID(int=0)

LIST_SEALS = sql(f"""
    SELECT s.number, s.hash, {ENTRY_COLUMNS} FROM audit_seals s LEFT JOIN audit_entries e ON e.id = s.entry_id
    WHERE s.number > :after ORDER BY s.number LIMIT :page
""")  # noqa: S608 - constants made of constants
LIST_ENTRIES = sql("""
    SELECT page.id, s.number IS NULL AND w.id IS NULL AS unaccounted,
           s.number IS NULL AND w.id IS NOT NULL AS waiting
    FROM (SELECT id FROM audit_entries WHERE id > :after ORDER BY id LIMIT :page) page
    LEFT JOIN audit_seals s ON s.entry_id = page.id LEFT JOIN audit_waiting w ON w.id = page.id
    ORDER BY page.id
""")
IS_OLD = sql("""
    SELECT EXISTS (SELECT FROM audit_entries e JOIN audit_seals s ON s.entry_id = e.id
                   WHERE s.number = 1 AND e.at < now() - CAST(:age AS interval)) AS old
""")


class Report(BaseModel):
    """The verdict on one schema's audit log.

    Attributes:
        chain: the schema.
        sealed: the number of the last seal.
        anchored: the highest number that an anchor names; the seals above it are the unanchored tail.
        anchors: the number of valid anchors.
        waiting: the number of committed entries without a seal.
        faults: the first faults of each kind; an intact log has none.
    """

    chain: str
    sealed: int
    anchored: int
    anchors: int
    waiting: int
    faults: tuple[Fault, ...]


async def verify(database: Database, anchored: Anchored) -> Report:
    """Compare a schema's chain with its entries and its anchors."""
    checker = Checker(database.schema, anchored.anchors)
    async with database.autocommit() as tx:
        faults = [*anchored.faults[:MOST_FAULTS], *await faults_above(tx, checker)]
        waiting, unaccounted = await _compare_entries(tx)
        faults += [
            Fault(number=None, what=f"the entry {id_} was inserted without a seal, or its seal was deleted")
            for id_ in unaccounted
        ]
    if not anchored.anchors and await is_old(database):
        faults.append(Fault(number=None, what="there is no anchor, so a rewritten chain cannot be noticed"))
    return Report(
        chain=database.schema,
        sealed=checker.number,
        anchored=max(anchored.anchors, default=0),
        anchors=len(anchored.anchors),
        waiting=waiting,
        faults=tuple(faults),
    )


async def is_old(database: Database) -> bool:
    """Tell whether a schema's chain is so old that it should have an anchor."""
    async with database.autocommit() as tx:
        row = await tx.row(IS_OLD, age=MAX_UNANCHORED_AGE)
    return row is not None and bool(row["old"])


async def faults_above(tx: Tx, checker: Checker) -> list[Fault]:
    """Check the chain from the checker's number to the end, and return the first faults."""
    faults: list[Fault] = []
    while rows := await tx.rows(LIST_SEALS, after=checker.number, page=PAGE):
        for row in rows:
            faults += checker.take(row["number"], row["hash"], row_of(row) if row["id"] is not None else None)
        if len(faults) >= MOST_FAULTS:
            break
    else:
        faults += checker.end()
    return faults[:MOST_FAULTS]


async def _compare_entries(tx: Tx) -> tuple[int, list[UUID]]:
    """Return the number of entries that wait for a seal, and the ids of entries that neither wait nor have one."""
    waiting, after = 0, LOWEST_ID
    unaccounted: list[UUID] = []
    while rows := await tx.rows(LIST_ENTRIES, after=after, page=PAGE):
        waiting += sum(row["waiting"] for row in rows)
        unaccounted += [row["id"] for row in rows if row["unaccounted"]]
        after = rows[-1]["id"]
    return waiting, unaccounted[:MOST_FAULTS]

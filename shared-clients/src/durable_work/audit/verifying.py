"""Verifying: is the audit log of a schema what was written, all of it, in the order in which it was sealed?

Seals are held against entries and entries against seals, page by page. A service may go on writing meanwhile: what is
only ever added to needs no snapshot, and none keeps Postgres from tidying up. What a verdict leaves open it says:
entries that wait for a seal, and numbers sealed since the last anchor, could still be changed by somebody with the
database alone.
"""

from datetime import timedelta
from typing import Final
from uuid import UUID

from pydantic import BaseModel

from durable_work.audit.anchors import Anchored
from durable_work.audit.recording import COLUMNS, row_of
from shared_clients.postgres import Database, Tx, sql
from shared_models.audit_chain import Checker, Fault

PAGE: Final = 2000
MOST_FAULTS: Final = 20
"""Of one kind, in one chain."""
FIRST_ANCHOR: Final = timedelta(minutes=5)
"""How old a chain may be without any anchor."""
NOTHING: Final = UUID(int=0)

SEALS = sql(f"""
    SELECT s.number, s.hash, {COLUMNS} FROM audit_seals s LEFT JOIN audit_entries e ON e.id = s.entry_id
    WHERE s.number > :after ORDER BY s.number LIMIT :page
""")  # noqa: S608 - constants made of constants
ENTRIES = sql("""
    SELECT page.id, s.number IS NULL AND w.id IS NULL AS stray, s.number IS NULL AND w.id IS NOT NULL AS waiting
    FROM (SELECT id FROM audit_entries WHERE id > :after ORDER BY id LIMIT :page) page
    LEFT JOIN audit_seals s ON s.entry_id = page.id LEFT JOIN audit_waiting w ON w.id = page.id
    ORDER BY page.id
""")
OLD = sql("""
    SELECT EXISTS (SELECT FROM audit_entries e JOIN audit_seals s ON s.entry_id = e.id
                   WHERE s.number = 1 AND e.at < now() - CAST(:age AS interval)) AS old
""")


class Report(BaseModel):
    """What is known of one schema's audit log.

    Attributes:
        chain: the schema.
        sealed: the number of the last seal.
        anchored: the highest number that an anchor names; what is above it is the unanchored tail.
        anchors: how many there are.
        waiting: entries that are committed and not sealed yet.
        faults: what is wrong, the first ones of each kind; none is a good log.
    """

    chain: str
    sealed: int
    anchored: int
    anchors: int
    waiting: int
    faults: tuple[Fault, ...]


async def verify(database: Database, anchored: Anchored) -> Report:
    """Walk a schema's chain and entries."""
    checker = Checker(database.schema, anchored.anchors)
    async with database.autocommit() as tx:
        faults = [*anchored.faults[:MOST_FAULTS], *await faults_above(tx, checker)]
        waiting, strays = await _compare_entries(tx)
        faults += [Fault(number=None, what=f"the entry {id_} was put in, or its seal was taken away") for id_ in strays]
        old = await tx.row(OLD, age=FIRST_ANCHOR)
    if not anchored.anchors and old is not None and old["old"]:
        faults.append(Fault(number=None, what="there is no anchor: a rewritten chain would not be noticed"))
    return Report(
        chain=database.schema,
        sealed=checker.number,
        anchored=max(anchored.anchors, default=0),
        anchors=len(anchored.anchors),
        waiting=waiting,
        faults=tuple(faults),
    )


async def faults_above(tx: Tx, checker: Checker) -> list[Fault]:
    """Walk from where the checker is to the end of the chain, and return the first faults."""
    faults: list[Fault] = []
    while rows := await tx.rows(SEALS, after=checker.number, page=PAGE):
        for row in rows:
            faults += checker.take(row["number"], row["hash"], row_of(row) if row["id"] is not None else None)
        if len(faults) >= MOST_FAULTS:
            break
    else:
        faults += checker.end()
    return faults[:MOST_FAULTS]


async def _compare_entries(tx: Tx) -> tuple[int, list[UUID]]:
    """Return how many entries wait for a seal, and those that neither wait nor have one."""
    waiting, after = 0, NOTHING
    strays: list[UUID] = []
    while rows := await tx.rows(ENTRIES, after=after, page=PAGE):
        waiting += sum(row["waiting"] for row in rows)
        strays += [row["id"] for row in rows if row["stray"]]
        after = rows[-1]["id"]
    return waiting, strays[:MOST_FAULTS]

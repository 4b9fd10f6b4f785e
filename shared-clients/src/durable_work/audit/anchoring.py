"""The witness: each minute it signs the head of a chain and keeps it outside of Postgres.

It is no part of a service, so that no service holds its key. Before it signs, it walks from what it signed last to the
head, and so never vouches for a chain that was rewritten in between. What it cannot do: whoever has the database, the
anchor files and the key can make a log that nobody can tell from a true one. So the files belong on storage that only
grows, and the key with the witness alone.
"""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from durable_work import metrics
from durable_work.audit.anchors import append, last_anchor, sign
from durable_work.audit.verifying import faults_above
from shared_clients.errors import Permanent
from shared_clients.postgres import Database, sql
from shared_models.audit_chain import Anchor, Checker, moment

log = structlog.get_logger()

ANCHOR_SECONDS: Final = 60.0

NOW = sql("""
    SELECT now() AS at, least(now(), (SELECT min(e.at) FROM audit_waiting w JOIN audit_entries e USING (id))) AS whole
""")


async def anchor_head(database: Database, folder: Path, key: Ed25519PrivateKey) -> Anchor | None:
    """Sign a schema's head and append it to its file; None where nothing new was sealed.

    Raises:
        Permanent: the chain is not the one that was signed before, or the file cannot be written.
    """
    last = await asyncio.to_thread(last_anchor, folder, database.schema)
    anchors = {last.number: last} if last else {}
    checker = Checker(database.schema, anchors, after=last.number - 1 if last else 0)
    async with database.autocommit() as tx:
        now = await tx.row(NOW)
        faults = await faults_above(tx, checker)
    if faults:
        what = f"the audit log of {database.schema} is not what was signed at {last.at if last else 'its beginning'}"
        raise Permanent(f"{what}: number {faults[0].number}: {faults[0].what}. Run: flotilla audit verify")
    assert now is not None
    anchor = None
    if checker.hash is not None and checker.number > (last.number if last else 0):
        head = Anchor(
            chain=database.schema,
            number=checker.number,
            hash=checker.hash.hex(),
            at=moment(now["at"]),
            whole_until=moment(now["whole"]),
        )
        anchor = sign(head, key)
        await asyncio.to_thread(append, folder, anchor)
    metrics.AUDIT_ANCHORED.labels(database.schema).set(datetime.now(UTC).timestamp())
    return anchor

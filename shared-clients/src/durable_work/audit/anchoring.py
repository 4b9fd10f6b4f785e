"""Anchoring: each minute the witness process signs the head of a chain and stores it outside Postgres.

The witness is no part of a service, so no service holds its key. Before it signs, it checks the signature of
the last anchor and walks the chain from there to the head, and so never signs a chain that was rewritten in between. It
does not begin by itself on a chain that is old and has no anchor. Anchors have a limit: with the database,
the anchor files and the key, an attacker can make a false log that verifies. Therefore the files belong on append-only
storage, and only the witness may hold the key.
"""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from durable_work import metrics
from durable_work.audit.anchors import PublicKeys, append, last_anchor, sign
from durable_work.audit.verifying import faults_above, is_old
from shared_clients.errors import Permanent
from shared_clients.identity.keys import key_id
from shared_clients.postgres import Database, sql
from shared_models.audit_chain import Anchor, Checker, moment

log = structlog.get_logger()

ANCHOR_SECONDS: Final = 60.0

SELECT_TIMES = sql("""
    SELECT now() AS at,
           least(now(), (SELECT min(e.at) FROM audit_waiting w JOIN audit_entries e USING (id))) AS complete_until
""")
"""The time of the anchor, and the time before which every committed entry is sealed."""


async def anchor_head(
    database: Database,
    folder: Path,
    key: Ed25519PrivateKey,
    *,
    previous: PublicKeys = MappingProxyType({}),
    begin: bool = False,
) -> Anchor | None:
    """Sign the head of a schema's chain and append it to the chain's file; return None where nothing new is sealed.

    Args:
        database: the schema.
        folder: of the anchor files.
        key: signs.
        previous: the key that signed before this one, where the key was replaced.
        begin: sign a chain that is old and has no anchor. A person decides that, because a chain whose anchors were
            taken away looks the same.

    Raises:
        Permanent: the chain differs from the anchored one, the last anchor is not validly signed, the chain is old and
            has no anchor, or the file cannot be written.
    """
    public = key.public_key()
    keys = {**previous, key_id(public): public}
    last = await asyncio.to_thread(last_anchor, folder, database.schema, keys)
    if last is None and not begin and await is_old(database):
        remedy = "restore the file from its copy; where there never was one, run once: flotilla audit anchor --begin"
        raise Permanent(f"the audit log of {database.schema} is old and has no anchor in {folder}; {remedy}")
    anchors = {last.number: last} if last else {}
    checker = Checker(database.schema, anchors, after=last.number - 1 if last else 0)
    async with database.autocommit() as tx:
        times = await tx.row(SELECT_TIMES)
        faults = await faults_above(tx, checker)
    if faults:
        signed_at = last.at if last else "its beginning"
        message = f"the audit log of {database.schema} is not the one that was signed at {signed_at}"
        raise Permanent(f"{message}: number {faults[0].number}: {faults[0].what}. Run: flotilla audit verify")
    assert times is not None
    anchor = None
    if checker.hash is not None and checker.number > (last.number if last else 0):
        head = Anchor(
            chain=database.schema,
            number=checker.number,
            hash=checker.hash.hex(),
            at=moment(times["at"]),
            whole_until=moment(times["complete_until"]),
        )
        anchor = sign(head, key)
        await asyncio.to_thread(append, folder, anchor)
    metrics.AUDIT_ANCHORED.labels(database.schema).set(datetime.now(UTC).timestamp())
    return anchor

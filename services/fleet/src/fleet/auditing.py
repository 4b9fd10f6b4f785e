"""Verify the audit log of a fleet on this machine, and sign its heads, once or until a signal comes."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from durable_work.audit.anchors import PublicKeys, read_anchors, read_keys
from durable_work.audit.verifying import Report, verify
from fleet.anchoring import (
    EMBEDDED,
    SERVER,
    anchor_folder,
    anchor_heads,
    anchoring,
    audit_key_file,
    load_witness,
    open_schemas,
)
from fleet.embedding import reachable_database
from fleet.settings import FleetSettings, read_settings
from service_process.serving import stop_signals
from shared_clients.errors import Permanent
from shared_clients.telemetry import configure
from shared_models.audit_chain import Anchor


class Verdict(BaseModel):
    """The reports of all chains; `ok` is false where any chain has a fault."""

    ok: bool
    chains: tuple[Report, ...]


async def verify_chains(folder: Path | None, keys: Sequence[Path]) -> Verdict:
    """Compare every chain with its entries and its anchors.

    Args:
        folder: the folder of the anchor files; by default the one in the settings.
        keys: files with the keys (PEM) that signed anchors; by default the one in the settings.

    Raises:
        Permanent: a key cannot be read.
    """
    settings = read_settings()
    trusted = _read_keys(keys or [audit_key_file(settings)])
    anchors = folder or anchor_folder(settings, _database_kind(settings))
    async with reachable_database(settings) as url, open_schemas(url) as schemas:
        chains = [await verify(database, read_anchors(anchors, name, trusted)) for name, database in schemas.items()]
    return Verdict(ok=not any(report.faults for report in chains), chains=tuple(chains))


async def anchor_once(*, begin: bool) -> list[Anchor]:
    """Sign the heads of all chains, and return the new anchors; `begin` also signs an old chain without an anchor."""
    settings = read_settings()
    async with reachable_database(settings) as url, open_schemas(url) as schemas:
        return await anchor_heads(schemas, load_witness(settings, _database_kind(settings)), begin=begin)


async def anchor_until_stopped() -> None:
    """Sign the heads of all chains each minute, until a signal comes."""
    settings = read_settings()
    configure("flotilla", level=settings.log_level, json=False)
    witness = load_witness(settings, _database_kind(settings))
    with stop_signals() as stop:
        async with reachable_database(settings) as url, anchoring(url, witness):
            await stop.requested.wait()


def _database_kind(settings: FleetSettings) -> str:
    return EMBEDDED if settings.database_url is None else SERVER


def _read_keys(paths: Sequence[Path]) -> PublicKeys:
    try:
        return read_keys(path.read_text() for path in paths)
    except (OSError, ValueError) as error:
        named = ", ".join(map(str, paths))
        raise Permanent(f"expected Ed25519 keys in PEM form in {named}: {error}") from error

"""The witness of the audit log on a laptop: its key, its anchor files, and the loop that signs each minute.

In a cluster the witness is a job of its own (`flotilla audit anchor`), with a key and a volume that no service has.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from durable_work.audit.anchoring import ANCHOR_SECONDS, anchor_head
from durable_work.audit.anchors import PublicKeys, read_keys
from fleet.migrate import SCHEMAS
from fleet.settings import FleetSettings
from fleet.state_folder import load_or_make_secret, open_state_folder
from shared_clients.errors import OutsideError, Permanent
from shared_clients.identity import generate_key, load_private, private_pem
from shared_clients.loops import Tasks, every
from shared_clients.postgres import Database, open_database
from shared_clients.secret_files import read_named_file
from shared_models.audit_chain import Anchor

log = structlog.get_logger()

EMBEDDED: Final = "embedded"
SERVER: Final = "server"
"""Two folders of anchors, because the embedded database and a server's have different chains."""


@dataclass(frozen=True, slots=True)
class Witness:
    """A signing key, and the folder for the anchors that it signed."""

    key: Ed25519PrivateKey
    folder: Path
    previous: PublicKeys = field(default_factory=dict)


def anchor_folder(settings: FleetSettings, database_kind: str) -> Path:
    return settings.audit_anchors or open_state_folder(settings.home) / "anchors" / database_kind


def audit_key_file(settings: FleetSettings) -> Path:
    return settings.audit_key or open_state_folder(settings.home) / "audit-key.pem"


def load_witness(settings: FleetSettings, database_kind: str) -> Witness:
    """Return the witness; without FLOTILLA_AUDIT_KEY its key is made in the state folder the first time.

    Raises:
        Permanent: the file cannot be read, or is not an Ed25519 key.
    """
    expected = "a key (PEM, Ed25519)"
    if settings.audit_key:
        pem = read_named_file("FLOTILLA_AUDIT_KEY", settings.audit_key, expected)
    else:
        pem = load_or_make_secret(audit_key_file(settings), _new_private_key)
    earlier = settings.audit_previous_key
    previous = [read_named_file("FLOTILLA_AUDIT_PREVIOUS_KEY", earlier, expected)] if earlier else []
    try:
        return Witness(load_private(pem), anchor_folder(settings, database_kind), read_keys(previous))
    except ValueError as error:
        raise Permanent(f"the key of the audit log cannot be used to sign anchors: {error}") from error


def _new_private_key() -> str:
    return private_pem(generate_key())


@asynccontextmanager
async def open_schemas(url: str) -> AsyncGenerator[Mapping[str, Database]]:
    """Open the schemas of all services, with one connection each, for a process that is not a service."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(open_database(url, name, pool_size=1)) for name in SCHEMAS}


async def anchor_heads(schemas: Mapping[str, Database], witness: Witness, *, begin: bool = False) -> list[Anchor]:
    """Sign the head of every chain that has grown, and return the new anchors.

    Args:
        schemas: the chains.
        witness: signs.
        begin: also sign an old chain that has no anchor; see `anchor_head`.

    Raises:
        Permanent: a chain differs from its last anchor; the other chains are signed first.
        Transient: the database does not answer.
    """
    new_anchors: list[Anchor] = []
    faults: list[Permanent] = []
    for database in schemas.values():
        try:
            anchor = await anchor_head(database, witness.folder, witness.key, previous=witness.previous, begin=begin)
            new_anchors += [anchor] if anchor else []
        except Permanent as error:
            faults.append(error)
    if faults:
        raise faults[0]
    return new_anchors


@asynccontextmanager
async def anchoring(url: str, witness: Witness) -> AsyncGenerator[None]:
    """Sign all heads each minute while the context is open, and once at its end."""

    async def sign_heads() -> None:
        try:
            await anchor_heads(schemas, witness)
        except OutsideError as error:
            log.error("audit_not_anchored", error=str(error))  # noqa: TRY400 - the message says it all

    async with open_schemas(url) as schemas:
        async with Tasks() as tasks:
            tasks.start("anchor audit heads", every(ANCHOR_SECONDS, sign_heads))
            yield
        await sign_heads()

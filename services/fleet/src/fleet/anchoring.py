"""The audit log's witness on a laptop: where its key and its anchors are, and the loop that signs each minute.

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
from fleet.home import kept_secret, open_home
from fleet.migrate import SCHEMAS
from fleet.settings import FleetSettings
from shared_clients.errors import OutsideError, Permanent
from shared_clients.identity import generate_key, load_private, private_pem
from shared_clients.loops import Tasks, every
from shared_clients.postgres import Database, open_database
from shared_models.audit_chain import Anchor

log = structlog.get_logger()

EMBEDDED: Final = "embedded"
SERVER: Final = "server"
"""Whose anchors they are: another database has other chains."""


@dataclass(frozen=True, slots=True)
class Witness:
    """What signs, and where it keeps what it signed."""

    key: Ed25519PrivateKey
    folder: Path
    previous: PublicKeys = field(default_factory=dict)


def anchors_of(settings: FleetSettings, whose: str) -> Path:
    return settings.audit_anchors or open_home(settings.home) / "anchors" / whose


def key_file_of(settings: FleetSettings) -> Path:
    return settings.audit_key or open_home(settings.home) / "audit-key.pem"


def witness_of(settings: FleetSettings, whose: str) -> Witness:
    """Return the witness of this place; without FLOTILLA_AUDIT_KEY its key is made in the home the first time.

    Raises:
        Permanent: there is no key that it could sign with.
    """
    path = key_file_of(settings)
    try:
        given = path.read_text() if settings.audit_key else kept_secret(path, lambda: private_pem(generate_key()))
        before = [settings.audit_previous_key.read_text()] if settings.audit_previous_key else []
        return Witness(load_private(given), anchors_of(settings, whose), read_keys(before))
    except (OSError, ValueError) as error:
        raise Permanent(f"{path} cannot be used to sign anchors: {error}") from error


@asynccontextmanager
async def open_schemas(url: str) -> AsyncGenerator[Mapping[str, Database]]:
    """Open every service's schema, for somebody who is none of them."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(open_database(url, name, pool_size=1)) for name in SCHEMAS}


async def anchor_heads(schemas: Mapping[str, Database], witness: Witness, *, begin: bool = False) -> list[Anchor]:
    """Sign the head of every chain that has grown, and return the new anchors.

    Args:
        schemas: the chains.
        witness: signs.
        begin: also sign an old chain that has no anchor; see `anchor_head`.

    Raises:
        Permanent: some chain is not what was signed before; the others are signed first.
        Transient: the database is away.
    """
    made: list[Anchor] = []
    broken: list[Permanent] = []
    for database in schemas.values():
        try:
            anchor = await anchor_head(database, witness.folder, witness.key, previous=witness.previous, begin=begin)
            made += [anchor] if anchor else []
        except Permanent as error:
            broken.append(error)
    if broken:
        raise broken[0]
    return made


@asynccontextmanager
async def anchoring(url: str, witness: Witness) -> AsyncGenerator[None]:
    """Sign all heads each minute while the context is open, and once at its end."""

    async def turn() -> None:
        try:
            await anchor_heads(schemas, witness)
        except OutsideError as error:
            log.error("audit_not_anchored", error=str(error))  # noqa: TRY400 - the message says it all

    async with open_schemas(url) as schemas:
        async with Tasks() as tasks:
            tasks.start("anchor audit heads", every(ANCHOR_SECONDS, turn))
            yield
        await turn()

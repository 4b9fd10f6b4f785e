"""`flotilla audit`: verify the audit log of every service, and be its witness once (for a cluster's job)."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.markup import escape
from rich.table import Table

from durable_work.audit.anchors import PublicKeys, read_anchors, read_keys
from durable_work.audit.verifying import Report, verify
from fleet.anchoring import EMBEDDED, SERVER, anchor_heads, anchoring, anchors_of, key_file_of, open_schemas, witness_of
from fleet.embedding import reachable_database
from fleet.remote import Json, notes, print_json
from fleet.settings import FleetSettings
from shared_clients.errors import Permanent
from shared_clients.process import run, stop_signals
from shared_clients.telemetry import configure
from shared_models.audit_chain import Anchor

audit = typer.Typer(no_args_is_help=True, help="Verify the record of who did what.")


class Verdict(BaseModel):
    """What `verify --json` prints; `ok` is false where any chain has a fault."""

    ok: bool
    chains: tuple[Report, ...]


@audit.command("verify")
def verify_command(
    anchors: Annotated[Path | None, typer.Option(help="The folder with the anchor files.")] = None,
    key: Annotated[list[Path] | None, typer.Option(help="A key (PEM) that signed anchors; more than one may.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Recompute every chain, and hold it against entries and anchors; status 1 when anything is not as it was."""
    settings = FleetSettings()
    keys = _keys(key or [key_file_of(settings)])
    verdict = asyncio.run(_verify(settings, anchors or anchors_of(settings, _whose(settings)), keys))
    print_json(verdict) if as_json else _show(verdict)
    if not verdict.ok:
        raise typer.Exit(1)


@audit.command("anchor")
def anchor_command(
    stay: Annotated[bool, typer.Option("--stay", help="Go on each minute, until a signal comes.")] = False,
) -> None:
    """Sign the heads of all chains with FLOTILLA_AUDIT_KEY, into FLOTILLA_AUDIT_ANCHORS: once, for a job a minute."""
    if stay:
        run(lambda: _stay(FleetSettings()))
        return
    made = asyncio.run(_anchor(FleetSettings()))
    notes.print(f"anchored: {', '.join(f'{one.chain} {one.number}' for one in made) or 'nothing new'}")


def _whose(settings: FleetSettings) -> str:
    return EMBEDDED if settings.database_url is None else SERVER


def _keys(paths: list[Path]) -> PublicKeys:
    try:
        return read_keys(path.read_text() for path in paths)
    except (OSError, ValueError) as error:
        named = ", ".join(map(str, paths))
        raise Permanent(f"expected Ed25519 keys in PEM form in {named}: {error}") from error


async def _verify(settings: FleetSettings, folder: Path, keys: PublicKeys) -> Verdict:
    async with reachable_database(settings) as url, open_schemas(url) as schemas:
        chains = [await verify(database, read_anchors(folder, name, keys)) for name, database in schemas.items()]
    return Verdict(ok=not any(report.faults for report in chains), chains=tuple(chains))


async def _anchor(settings: FleetSettings) -> list[Anchor]:
    async with reachable_database(settings) as url, open_schemas(url) as schemas:
        return await anchor_heads(schemas, witness_of(settings, _whose(settings)))


async def _stay(settings: FleetSettings) -> None:
    configure("flotilla", level=settings.log_level, json=False)
    witness = witness_of(settings, _whose(settings))
    with stop_signals() as stop:
        async with reachable_database(settings) as url, anchoring(url, witness):
            await stop.asked.wait()


def _show(verdict: Verdict) -> None:
    table = Table("chain", "sealed", "anchored", "not anchored", "not sealed", "verdict", box=None)
    for report in verdict.chains:
        good = "[red]broken[/red]" if report.faults else "[green]good[/green]"
        tail = max(0, report.sealed - report.anchored)
        table.add_row(report.chain, *map(str, (report.sealed, report.anchored, tail, report.waiting)), good)
    notes.print(table)
    for report in verdict.chains:
        for fault in report.faults:
            place = f"{report.chain}, number {fault.number}" if fault.number is not None else report.chain
            notes.print(f"[red]{escape(place)}[/red]: {escape(fault.what)}", soft_wrap=True)

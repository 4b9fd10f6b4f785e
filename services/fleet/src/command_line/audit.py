"""`flotilla audit`: verify the audit log of every service, or sign its heads (for a cluster's job)."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from command_line.local import local
from command_line.remote import Json, notes, print_json

if TYPE_CHECKING:
    from fleet.auditing import Verdict

audit = typer.Typer(no_args_is_help=True, help="Verify the record of who did what.")


@audit.command("verify")
def verify_command(
    anchors: Annotated[Path | None, typer.Option(help="The folder with the anchor files.")] = None,
    key: Annotated[list[Path] | None, typer.Option(help="A key (PEM) that signed anchors; more than one may.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Recompute every chain, and hold it against entries and anchors; status 1 when anything is not as it was."""
    verdict = asyncio.run(local("auditing").verify_chains(anchors, key or []))
    print_json(verdict) if as_json else _show(verdict)
    if not verdict.ok:
        raise typer.Exit(1)


@audit.command("anchor")
def anchor_command(
    stay: Annotated[bool, typer.Option("--stay", help="Go on each minute, until a signal comes.")] = False,
    begin: Annotated[bool, typer.Option("--begin", help="Also sign an old chain that has no anchor, once.")] = False,
) -> None:
    """Sign the heads of all chains with FLOTILLA_AUDIT_KEY, into FLOTILLA_AUDIT_ANCHORS: once, for a job a minute."""
    auditing = local("auditing")
    if stay:
        local("up").run(auditing.anchor_until_stopped)
        return
    made = asyncio.run(auditing.anchor_once(begin=begin))
    notes.print(f"anchored: {', '.join(f'{one.chain} {one.number}' for one in made) or 'nothing new'}")


def _show(verdict: "Verdict") -> None:
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

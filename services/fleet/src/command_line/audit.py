"""`flotilla audit`: verify the audit log of every service, or sign its heads, as a cluster's job does."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from command_line.local import fleet_module
from command_line.options import json_option
from command_line.output import print_result

if TYPE_CHECKING:
    from durable_work.audit.verifying import Report


@click.group
def audit() -> None:
    """Verify the record of who did what."""


@audit.command
@click.option("--anchors", type=click.Path(path_type=Path), help="The folder with the anchor files.")
@click.option(
    "--key",
    "keys",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A key (PEM) that signed anchors; may be repeated.",
)
@json_option
def verify(anchors: Path | None, keys: tuple[Path, ...], *, as_json: bool) -> None:
    """Recompute every chain, and compare it with entries and anchors.

    The exit status is 1 when an entry, a seal or an anchor is not as it was written.
    """
    verdict = asyncio.run(fleet_module("auditing").verify_chains(anchors, keys))
    if as_json:
        print_result(verdict.model_dump_json(indent=2, exclude_none=True))
    else:
        _print_reports(verdict.chains)
    if not verdict.ok:
        sys.exit(1)


@audit.command
@click.option("--stay", is_flag=True, help="Sign each minute, until a signal comes.")
@click.option("--begin", is_flag=True, help="Also sign an old chain that has no anchor, once.")
def anchor(*, stay: bool, begin: bool) -> None:
    """Sign the heads of all chains once.

    The key is FLOTILLA_AUDIT_KEY; the anchors go to FLOTILLA_AUDIT_ANCHORS. Run it each minute as a job, or with
    --stay.
    """
    auditing = fleet_module("auditing")
    if stay:
        fleet_module("up").run(auditing.anchor_until_stopped)
        return
    new_anchors = asyncio.run(auditing.anchor_once(begin=begin))
    print_result(f"anchored: {', '.join(f'{one.chain} {one.number}' for one in new_anchors) or 'nothing new'}")


def _print_reports(reports: "Sequence[Report]") -> None:
    table = Table("chain", "sealed", "anchored", "not anchored", "not sealed", "verdict", box=None)
    for report in reports:
        word = "[red]broken[/red]" if report.faults else "[green]good[/green]"
        tail = max(0, report.sealed - report.anchored)
        table.add_row(report.chain, *map(str, (report.sealed, report.anchored, tail, report.waiting)), word)
    Console(highlight=False).print(table)
    for report in reports:
        for fault in report.faults:
            entry = report.chain if fault.number is None else f"{report.chain}, number {fault.number}"
            print_result(f"{entry}: {fault.what}")

"""`flotilla doctor`: what is well and what is not on this machine, with the remedy of each fault."""

import asyncio
import sys
from typing import TYPE_CHECKING, Final

import click

from command_line.local import fleet_module
from command_line.options import json_option
from command_line.output import harmless, print_result

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKS: "Final[Mapping[str, str]]" = {"good": "ok  ", "note": "note", "bad": "BAD "}


@click.command
@json_option
def doctor(*, as_json: bool) -> None:
    """Check settings, stores, agents and models, and say what to do.

    It changes nothing and starts nothing. The exit status is 1 where something is bad.
    """
    diagnosis = asyncio.run(fleet_module("doctor").examine())
    if as_json:
        print_result(diagnosis.model_dump_json(indent=2, exclude_none=True))
    else:
        for finding in diagnosis.findings:
            print_result(f"{MARKS[finding.state]} {finding.check:10} {harmless(finding.found)}")
            if finding.remedy:
                print_result(f"                → {harmless(finding.remedy)}")
    if not diagnosis.ok:
        sys.exit(1)

"""`flotilla migrate`: the schemas of all services, and the topics of the bus, before a fleet starts."""

import asyncio
import json

import click

from command_line.local import fleet_module
from command_line.options import json_option
from command_line.output import print_result


@click.command
@json_option
def migrate(*, as_json: bool) -> None:
    """Bring the database up to date.

    The database is that of FLOTILLA_DATABASE_URL, or the embedded one in FLOTILLA_HOME. Where FLOTILLA_BUS_URL is set,
    missing topics are made there too.
    """
    schemas = asyncio.run(fleet_module("migrate").migrate_here())
    print_result(json.dumps({"schemas": schemas}, indent=2) if as_json else f"up to date: {', '.join(schemas)}")

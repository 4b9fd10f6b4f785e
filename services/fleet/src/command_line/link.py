"""`flotilla link`: a link that signs one browser in."""

import json

import click

from command_line.options import server_option
from command_line.output import print_result
from command_line.remote import RemoteCall, call, remote_fleet


@click.command
@server_option
def link(server: str | None) -> None:
    """Print a fresh link that signs one browser in, once."""
    fleet = remote_fleet(server)
    answer = json.loads(call(fleet, RemoteCall("POST", "/auth/codes", b"{}")))
    print_result(f"{fleet.url}/#code={answer['code']}")

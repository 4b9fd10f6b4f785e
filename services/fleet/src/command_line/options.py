"""The options that several commands have, as decorators."""

from typing import Final

import click

json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
server_option: Final = click.option(
    "--server", metavar="URL", help="Base URL of the fleet; by default the one on this machine."
)

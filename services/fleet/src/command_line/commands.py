"""All commands of `flotilla`, by name; a command is imported when it is run.

`flotilla --help` needs only this table, so it imports no command, no HTTP client and no model.
"""

import sys
from typing import Final

import click

from command_line.local import WrongSettings, load_command
from command_line.output import prepare_stdout, print_error
from shared_clients.errors import OutsideError

COMMANDS: Final = {
    "up": "Run the whole fleet with the web chat until Ctrl-C.",
    "ask": "Ask a question, and print the answer as it comes.",
    "link": "Print a fresh link that signs one browser in, once.",
    "dead-letters": "List, replay and discard events that could not be handled.",
    "audit": "Verify the record of who did what.",
    "migrate": "Bring the database up to date.",
    "credentials": "Make the passwords and keys of a fleet of containers.",
}
"""The first sentence of each command's help. The command `dead-letters` is `command_line.dead_letters.dead_letters`."""


class LazyGroup(click.Group):
    """The group of `COMMANDS`: lists them by the table, and imports the one that is run or completed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - same
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - same
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"max_content_width": 100})
def flotilla() -> None:
    """Run AI agents as a fleet of services."""


def main() -> None:
    """Run the command line; an expected error is one message on stderr, without a traceback."""
    prepare_stdout()
    try:
        flotilla(prog_name="flotilla")
    except WrongSettings as error:
        print_error(str(error))
        sys.exit(2)
    except OutsideError as error:
        print_error(str(error))
        sys.exit(1)

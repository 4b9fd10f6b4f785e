"""`flotilla completion`: the script by which a shell completes commands and options."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from command_line.output import print_result
from command_line.settings import COMPLETE_VARIABLE

SHELLS: Final = ("bash", "zsh", "fish")


@click.command
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    For bash: eval "$(./flotilla completion bash)". In zsh and fish the folder of `flotilla` has to be in PATH.
    """
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    root = context.find_root().command
    print_result(shell_class(root, {}, "flotilla", COMPLETE_VARIABLE).source().strip())

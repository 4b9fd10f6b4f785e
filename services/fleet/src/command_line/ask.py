"""`flotilla ask`: a question to a running fleet, and its answer on stdout as it comes."""

import json
import sys
from uuid import UUID

import click

from command_line.answers import print_answer, print_end
from command_line.asking import Question, follow_answer
from command_line.local import own_command
from command_line.options import json_option, server_option
from command_line.output import print_note, print_result
from command_line.remote import remote_fleet


@click.command
@click.argument("content", metavar="QUESTION")
@click.option("--agent", metavar="NAME", help="The agent that answers; by default the configured one.")
@click.option("--session", type=click.UUID, metavar="ID", help="The conversation to go on with; by default a new one.")
@server_option
@json_option
def ask(content: str, *, agent: str | None, session: UUID | None, server: str | None, as_json: bool) -> None:
    """Ask a question, and print the answer as it comes."""
    if not content.strip():
        raise click.UsageError(f'the question is empty; expected some text: {own_command()} ask "What time is it?"')
    ended = print_answer(follow_answer(remote_fleet(server), Question(content, agent, session)), quiet=as_json)
    if as_json:
        print_result(json.dumps(ended.request, indent=2, ensure_ascii=False))
    else:
        print_end(ended)
        print_note(f'· to go on: {own_command()} ask --session {ended.request.get("session_id")} "…"')
    if ended.error is not None:
        sys.exit(1)

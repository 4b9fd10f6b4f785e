"""`flotilla ask`: a question to a running fleet, and its answer on stdout as it comes."""

import json
import sys
from typing import Final, assert_never
from uuid import UUID

import click

from command_line.asking import Ended, Question, Restarted, Retrying, Text, ToolCall, follow_answer
from command_line.options import json_option, server_option
from command_line.output import print_error, print_note, print_result
from command_line.remote import RemoteFleet, remote_fleet

CUT: Final = {
    "length": "The answer was cut at the model's length limit.",
    "size": "The answer was cut: it is larger than Flotilla can carry.",
}
"""By the values of `shared_models.requests.Truncation`."""


@click.command
@click.argument("content", metavar="QUESTION")
@click.option("--agent", metavar="NAME", help="The agent that answers; by default the configured one.")
@click.option("--session", type=click.UUID, metavar="ID", help="The conversation to go on with; by default a new one.")
@server_option
@json_option
def ask(content: str, *, agent: str | None, session: UUID | None, server: str | None, as_json: bool) -> None:
    """Ask a question, and print the answer as it comes."""
    if not content.strip():
        raise click.UsageError('the question is empty; expected some text, such as flotilla ask "What time is it?"')
    ended = _print_answer(remote_fleet(server), Question(content, agent, session), quiet=as_json)
    if as_json:
        print_result(json.dumps(ended.request, indent=2, ensure_ascii=False))
    elif ended.error is not None:
        print_error(f"{ended.status}: {ended.error}")
    elif ended.truncated is not None:
        print_note(CUT.get(ended.truncated, f"The answer was cut: {ended.truncated}."))
    if ended.error is not None:
        sys.exit(1)


def _print_answer(fleet: RemoteFleet, question: Question, *, quiet: bool) -> Ended:
    """Print the parts of the answer, or with `quiet` none of them, and return its end."""
    line_open = False
    for part in follow_answer(fleet, question):
        match part:
            case Ended():
                if line_open:
                    print_result("")
                return part
            case _ if quiet:
                continue
            case Text(text):
                print_result(text, end="")
                line_open = not text.endswith("\n") if text else line_open
            case ToolCall(tool):
                print_note(f"· {tool}")
            case Retrying():
                print_note("· the model is asked again")
            case Restarted():
                print_note("\n· the answer starts again")
            case _:
                assert_never(part)
    raise AssertionError("an answer ends with Ended")

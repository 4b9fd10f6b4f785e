"""`flotilla chat`: one conversation with a running fleet, in the terminal."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from uuid import UUID

import click

from command_line.answers import print_answer, print_end
from command_line.asking import AnswerPart, Begun, Question, follow_answer, stop_answer
from command_line.local import own_command
from command_line.options import server_option
from command_line.output import print_error, print_note
from command_line.remote import RemoteFleet, remote_fleet
from shared_clients.errors import OutsideError


@click.command
@click.option("--agent", metavar="NAME", help="The agent that answers; by default the configured one.")
@click.option("--session", type=click.UUID, metavar="ID", help="The conversation to go on with; by default a new one.")
@server_option
def chat(*, agent: str | None, session: UUID | None, server: str | None) -> None:
    """Talk with an agent in the terminal.

    Each line is a question. Ctrl-C stops an answer, Ctrl-D ends the conversation.
    """
    fleet = remote_fleet(server)
    conversation = Conversation(fleet, agent, session)
    print_note("Each line is a question. Ctrl-C stops an answer, Ctrl-D ends the conversation.")
    for line in _lines():
        if line.strip():
            with suppress(KeyboardInterrupt):
                conversation.ask(line)
    if conversation.session is not None:
        print_note(f"· to go on: {own_command()} chat --session {conversation.session}")


class Conversation:
    """The questions of one session, one after the other."""

    def __init__(self, fleet: RemoteFleet, agent: str | None, session: UUID | None) -> None:
        self._fleet = fleet
        self._agent = agent
        self.session = session
        self._begun: Begun | None = None

    def ask(self, question: str) -> None:
        """Ask, and print the answer; Ctrl-C stops it. An error is printed, and the conversation goes on."""
        self._begun = None
        parts = self._noted(follow_answer(self._fleet, Question(question, self._agent, self.session)))
        try:
            print_end(print_answer(parts))
        except KeyboardInterrupt:
            self._stop()
        except OutsideError as error:
            print_error(str(error))

    def _noted(self, parts: Iterator[AnswerPart]) -> Iterator[AnswerPart]:
        """Yield the parts, and keep the run and the session that the first one names."""
        for part in parts:
            if isinstance(part, Begun):
                self._begun = part
                self.session = UUID(part.session_id) if part.session_id else self.session
            yield part

    def _stop(self) -> None:
        print_note("\n· stopped")
        if self._begun is not None:
            try:
                stop_answer(self._fleet, self._begun)
            except OutsideError as error:
                print_error(str(error))


def _lines() -> Iterator[str]:
    """Yield what the person types, line by line; a pipe is read without a prompt."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield from sys.stdin
        return
    while True:
        try:
            yield input("> ")
        except EOFError:
            print_note("")
            return
        except KeyboardInterrupt:
            print_note("\n· Ctrl-D ends the conversation")

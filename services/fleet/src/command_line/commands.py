"""The `flotilla` command line. Results go to stdout; progress and errors go to stderr."""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from pydantic import BaseModel, ValidationError
from rich.markup import escape

from command_line.asking import Question, Seen, ask
from command_line.audit import audit
from command_line.dead_letters import letters
from command_line.local import local
from command_line.remote import Json, Server, notes, print_json, server_of
from command_line.settings import read_settings
from shared_clients.errors import OutsideError
from shared_clients.outbound import HttpClient
from shared_models.requests import RequestView, Truncation

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Run AI agents as a fleet of services.")
MOST_REPLICAS = 16
"""Of one service on one machine."""
CUT = {
    Truncation.LENGTH: "The answer was cut at the model's length limit.",
    Truncation.SIZE: "The answer was cut: it is larger than Flotilla can carry.",
}
app.add_typer(letters, name="dead-letters")
app.add_typer(audit, name="audit")


@app.command()
def up(
    processes: Annotated[bool, typer.Option(help="A process per service, on real Postgres, Kafka and Redis.")] = False,
    replicas: Annotated[
        list[str] | None, typer.Option(metavar="SERVICE=N", help="With --processes: how many of a service.")
    ] = None,
) -> None:
    """Run the whole fleet with the web chat until Ctrl-C: in this process, or with a process per service."""
    local("up").up(dict(_replicas(one) for one in replicas or []), notes, processes=processes)


@app.command("ask")
def ask_command(
    content: Annotated[str, typer.Argument(help="What to ask.")],
    agent: Annotated[str | None, typer.Option(help="Which agent; by default the configured one.")] = None,
    *,
    session: Annotated[UUID | None, typer.Option(help="Go on in this conversation.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Ask something, and print the answer as it comes."""
    question = Question(content, agent, session)
    view = asyncio.run(_ask(server_of(server), question, quiet=as_json))
    if as_json:
        print_json(view)
    elif view.response is not None and view.response.truncated is not None:
        notes.print(f"[yellow]{CUT[view.response.truncated]}[/yellow]")
    elif view.error is not None:
        notes.print(f"[red]{view.status}[/red]: {escape(view.error.message)}")
    if view.error is not None:
        raise typer.Exit(1)


@app.command()
def link(server: Server = None) -> None:
    """Print a fresh link that signs one browser in, once."""
    base = (server or read_settings().url).rstrip("/")
    print(asyncio.run(_link(server_of(server), base)))  # noqa: T201 - the result


@app.command()
def migrate(as_json: Json = False) -> None:
    """Bring the database up to date: FLOTILLA_DATABASE_URL, or the embedded one in FLOTILLA_HOME.

    Where FLOTILLA_BUS_URL is set, the topics that are missing there are made too.
    """
    schemas = asyncio.run(local("migrate").migrate_here())
    if as_json:
        print_json(Migrated(schemas=schemas))
    else:
        notes.print(f"up to date: {', '.join(schemas)}")


@app.command("credentials")
def credentials_command(
    folder: Annotated[Path, typer.Argument(help="Where they are written; what is there already is kept.")],
    database: Annotated[str, typer.Option(help="Where Postgres will be: host[:port]/name.")],
    redis: Annotated[str, typer.Option(help="Where Redis will be: host[:port].")],
) -> None:
    """Make what a fleet of containers has to know of each other: passwords, addresses, keys."""
    chosen = local("settings").FleetSettings().auth_dev_key
    local("credentials").write_credentials(folder, database=database, redis=redis, chosen_key=chosen)


class Migrated(BaseModel):
    """What `migrate --json` prints."""

    schemas: list[str]


def main() -> None:
    """Run the command line; what a person can mend comes without a traceback."""
    try:
        app()
    except OutsideError as error:
        notes.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        sys.exit(1)
    except ValidationError as error:
        for fault in error.errors():
            where = "_".join(map(str, fault["loc"]))
            name = f"FLOTILLA_{where.upper()}" if error.title == "FleetSettings" else where
            notes.print(f"[red]{escape(f'{name}: {fault["msg"]}')}[/red]", soft_wrap=True)
        sys.exit(2)


def _replicas(given: str) -> tuple[str, int]:
    service, _, count = given.partition("=")
    if not count.isdecimal() or not 1 <= int(count) <= MOST_REPLICAS:
        raise typer.BadParameter(f"expected SERVICE=N with N from 1 to {MOST_REPLICAS}, and got {given!r}")
    return service, int(count)


async def _ask(server: HttpClient, question: Question, *, quiet: bool) -> RequestView:
    async with server, aclosing(ask(server, question)) as answer:
        async for seen in answer:
            if not quiet:
                _show(seen)
            if seen.view is not None:
                return seen.view
    raise AssertionError("a stream ends with a terminal frame")


def _show(seen: Seen) -> None:
    if seen.delta:
        sys.stdout.write(seen.delta)
    elif seen.tool:
        notes.print(f"[dim]· {escape(seen.tool)}[/dim]")
    elif seen.name == "reset":
        notes.print("\n[dim]· the answer starts again[/dim]")
    elif seen.name == "retrying":
        notes.print("[dim]· the model is asked again[/dim]")
    elif seen.name == "resync":
        sys.stdout.write(f"\n{seen.value.get('content', '')}")
    elif seen.type == "TEXT_MESSAGE_END" or seen.view is not None:
        sys.stdout.write("\n" if seen.view is None else "")
    sys.stdout.flush()


async def _link(server: HttpClient, base: str) -> str:
    async with server:
        answer = await server.call("POST", "/auth/codes", content=b"{}")
    return f"{base}/#code={answer.json()['code']}"

"""`flotilla dead-letters …`: what an operator does about events that could not be handled, from the command line."""

import asyncio
import sys
from base64 import b64decode
from datetime import UTC, datetime
from typing import Annotated, Final
from urllib.parse import quote, urlencode

import typer
from pydantic import AwareDatetime, BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from command_line.remote import Json, Server, notes, print_json, server_of
from shared_models.dead_letters import (
    MOST,
    PAGE,
    DeadLetter,
    DeadLetterPage,
    Discard,
    LetterFilter,
    NotReplayed,
    ReplayedBatch,
    Settled,
)

PATH: Final = "/api/v1/dead-letters"
BATCH_SECONDS: Final = 120.0
"""How long one batch of replays may take."""
_MOMENT: Final = TypeAdapter[datetime](AwareDatetime)

letters = typer.Typer(no_args_is_help=True, help="Events that could not be handled or published, and wait for you.")


def _moment(text: str) -> datetime:
    try:
        return _MOMENT.validate_python(text)
    except ValidationError as error:
        detail = f"expected a time with its zone, such as 2026-11-21T09:00:00Z, and got {text!r}"
        raise typer.BadParameter(detail) from error


Letter = Annotated[str, typer.Argument(help="The letter's id, as the list shows it.")]
Service = Annotated[str | None, typer.Option(help="Only those that this service keeps.")]
Type = Annotated[str | None, typer.Option("--type", help="Only events of this type.")]
Since = Annotated[
    datetime | None, typer.Option(parser=_moment, metavar="TIME", help="Only those that died then or later.")
]


@letters.command("list")
def list_letters(
    service: Service = None,
    type_: Type = None,
    since: Since = None,
    *,
    parked: Annotated[
        bool, typer.Option("--parked", help="Instead, events that are tried again by themselves.")
    ] = False,
    before: Annotated[str | None, typer.Option(help="The page behind this one: what the last page told.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="How many at most.")] = PAGE,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List dead letters, the last that died first."""
    wanted = LetterFilter(service=service, type=type_, since=since, before=before, limit=limit)
    query = {**wanted.model_dump(mode="json", exclude_none=True), "state": "parked" if parked else "dead"}
    page = _call("GET", f"{PATH}?{urlencode(query)}", DeadLetterPage, server=server)
    if as_json:
        print_json(page)
        return
    _show_list(page, "tried again by themselves" if parked else "dead")


@letters.command()
def show(
    letter: Letter,
    *,
    content: Annotated[
        bool, typer.Option("--content", help="With its headers and bytes; that you read them is on record.")
    ] = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter."""
    shown = _call("GET", _path(letter) + ("?content=true" if content else ""), DeadLetter, server=server)
    if as_json:
        print_json(shown)
        return
    _show_one(shown)


@letters.command()
def replay(letter: Letter, server: Server = None, as_json: Json = False) -> None:
    """Have one dead letter tried again; a dead request becomes a new one."""
    settled = _call("POST", f"{_path(letter)}/replay", Settled, server=server)
    if as_json:
        print_json(settled)
    elif settled.request_id is not None:
        notes.print(f"it is the new request {settled.request_id}")
    else:
        notes.print("it is being tried again")


@letters.command()
def replay_all(
    service: Service = None,
    type_: Type = None,
    since: Since = None,
    *,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Have all dead letters that fit tried again; those that cannot be are named, and make the exit status 1."""
    wanted = LetterFilter(service=service, type=type_, since=since, limit=MOST)
    total = ReplayedBatch(replayed=0)
    while True:
        batch = _call("POST", f"{PATH}/replay", ReplayedBatch, server=server, body=wanted)
        total = ReplayedBatch(
            replayed=total.replayed + batch.replayed,
            requests=total.requests + batch.requests,
            refused=total.refused + batch.refused,
        )
        if batch.next is None:
            break
        wanted = wanted.model_copy(update={"before": batch.next})
    if as_json:
        print_json(total)
    else:
        notes.print(f"replayed: {total.replayed}, of which new requests: {len(total.requests)}")
        _show_refused(total.refused)
    if total.refused:
        raise typer.Exit(1)


@letters.command()
def discard(
    letter: Letter,
    reason: Annotated[str, typer.Option(help="Why; it stays on record.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Give one dead letter up for good."""
    settled = _call("POST", f"{_path(letter)}/discard", Settled, server=server, body=Discard(reason=reason))
    if as_json:
        print_json(settled)
    else:
        notes.print("it is discarded")


def _path(letter: str) -> str:
    return f"{PATH}/{quote(letter, safe='')}"


def _call[T: BaseModel](
    method: str, path: str, expected: type[T], *, server: str | None, body: BaseModel | None = None
) -> T:
    """Call the fleet, and return what it answers."""

    async def call() -> bytes:
        async with server_of(server) as fleet:
            answer = await fleet.call(
                method,
                path,
                content=None if body is None else body.model_dump_json(exclude_none=True).encode(),
                deadline=BATCH_SECONDS,
            )
        return answer.content

    return expected.model_validate_json(asyncio.run(call()))


def _show_list(page: DeadLetterPage, what: str) -> None:
    if not page.letters:
        notes.print(f"no events are {what}")
        return
    table = Table("letter", "type", "since", "tries", "why", box=None, pad_edge=False, header_style="bold")
    for letter in page.letters:
        table.add_row(letter.id, _safe(letter.type), _ago(letter), str(letter.attempts), _safe(letter.reason[:300]))
    console = Console(highlight=False)
    table.columns[0].no_wrap = True
    console.print(table)
    if page.next is not None:
        notes.print(f"there are more: --before {page.next}", soft_wrap=True)


def _show_one(letter: DeadLetter) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in letter.model_dump(mode="json", exclude_none=True, exclude={"content"}).items():
        table.add_row(name.replace("_", " "), _safe(str(value)))
    attributes = letter.content.attributes if letter.content else {}
    for name, attribute in sorted(attributes.items()):
        table.add_row(_safe(f"ce-{name}"), _safe(attribute))
    Console(highlight=False).print(table)
    if letter.content is not None:
        sys.stdout.write(f"\n{_readable(b64decode(letter.content.data_base64))}\n")


def _show_refused(refused: tuple[NotReplayed, ...]) -> None:
    for letter in refused:
        notes.print(f"[red]{_safe(letter.id)}[/red]: {_safe(letter.detail)}", soft_wrap=True)


def _readable(data: bytes) -> str:
    """Return an event's data for a person: JSON with indentation, other text as it is."""
    try:
        text = to_json(from_json(data), indent=2).decode()
    except ValueError:
        text = data.decode(errors="replace")
    return _printable(text)


def _printable(text: str) -> str:
    """Return a text whose characters a terminal shows and does not obey: a stranger may have written it."""
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)


def _safe(text: str) -> str:
    return escape(_printable(text))


def _ago(letter: DeadLetter) -> str:
    seconds = int((datetime.now(UTC) - letter.place[0]).total_seconds())
    for name, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {name}"
    return f"{max(0, seconds)} s"

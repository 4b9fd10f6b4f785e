"""`flotilla dead-letters …`: list, show, replay and discard events that could not be handled or published."""

import sys
from base64 import b64decode
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlencode

import click
from pydantic import AwareDatetime, BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from command_line.options import json_option, server_option
from command_line.output import print_error, print_note, print_result
from command_line.remote import RemoteCall, call, remote_fleet
from shared_clients.errors import Permanent
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
"""The longest time that one batch of replays may take."""
_TIME: Final = TypeAdapter[datetime](AwareDatetime)
_letter_argument: Final = click.argument("letter")


@click.group
def dead_letters() -> None:
    """List, replay and discard events that could not be handled."""


def _parse_time(_context: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    try:
        return None if text is None else _TIME.validate_python(text)
    except ValidationError as error:
        detail = f"expected a time with its zone, such as 2026-11-21T09:00:00Z, and got {text!r}"
        raise click.BadParameter(detail) from error


_service_option: Final = click.option("--service", metavar="NAME", help="Only dead letters that this service keeps.")
_type_option: Final = click.option("--type", "event_type", metavar="NAME", help="Only events of this type.")
_since_option: Final = click.option(
    "--since", callback=_parse_time, metavar="TIME", help="Only events that died at this time or later."
)


@dead_letters.command("list")
@_service_option
@_type_option
@_since_option
@click.option("--parked", is_flag=True, help="Instead, events that the service itself tries again.")
@click.option("--before", metavar="CURSOR", help="Go on after an earlier page: the value that it printed.")
@click.option(
    "--limit",
    type=click.IntRange(1, MOST),
    default=PAGE,
    show_default=True,
    help="The largest number of dead letters.",
)
@server_option
@json_option
def list_letters(
    *,
    service: str | None,
    event_type: str | None,
    since: datetime | None,
    parked: bool,
    before: str | None,
    limit: int,
    server: str | None,
    as_json: bool,
) -> None:
    """List dead letters; the one that died last comes first."""
    wanted = _letter_filter(service, event_type, since, before=before, limit=limit)
    query = {**wanted.model_dump(mode="json", exclude_none=True), "state": "parked" if parked else "dead"}
    page = _call("GET", f"{PATH}?{urlencode(query)}", DeadLetterPage, server=server)
    if as_json:
        _print_json(page)
        return
    _print_page(page, "tried again by themselves" if parked else "dead")


@dead_letters.command
@_letter_argument
@click.option("--content", is_flag=True, help="With its headers and bytes; reading them is recorded in the audit log.")
@server_option
@json_option
def show(letter: str, *, content: bool, server: str | None, as_json: bool) -> None:
    """Show one dead letter."""
    shown = _call("GET", _path(letter) + ("?content=true" if content else ""), DeadLetter, server=server)
    if as_json:
        _print_json(shown)
        return
    _print_letter(shown)


@dead_letters.command
@_letter_argument
@server_option
@json_option
def replay(letter: str, *, server: str | None, as_json: bool) -> None:
    """Replay one dead letter; a dead request becomes a new request."""
    settled = _call("POST", f"{_path(letter)}/replay", Settled, server=server)
    if as_json:
        _print_json(settled)
    elif settled.request_id is not None:
        print_result(f"the dead letter is now the new request {settled.request_id}")
    else:
        print_result("the dead letter is being tried again")


@dead_letters.command
@_service_option
@_type_option
@_since_option
@server_option
@json_option
def replay_all(
    *, service: str | None, event_type: str | None, since: datetime | None, server: str | None, as_json: bool
) -> None:
    """Replay all dead letters that match.

    Letters that cannot be replayed are listed on stderr, and the exit status is then 1.
    """
    wanted = _letter_filter(service, event_type, since, limit=MOST)
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
        _print_json(total)
    else:
        print_result(f"replayed: {total.replayed}, of which new requests: {len(total.requests)}")
        _print_refused(total.refused)
    if total.refused:
        sys.exit(1)


@dead_letters.command
@_letter_argument
@click.option("--reason", required=True, help="Why it is discarded; the reason stays on record.")
@server_option
@json_option
def discard(letter: str, *, reason: str, server: str | None, as_json: bool) -> None:
    """Discard one dead letter for good."""
    settled = _call("POST", f"{_path(letter)}/discard", Settled, server=server, body=_discard(reason))
    if as_json:
        _print_json(settled)
    else:
        print_result("the dead letter is discarded")


def _path(letter: str) -> str:
    return f"{PATH}/{quote(letter, safe='')}"


def _letter_filter(
    service: str | None, event_type: str | None, since: datetime | None, *, before: str | None = None, limit: int
) -> LetterFilter:
    try:
        return LetterFilter(service=service, type=event_type, since=since, before=before, limit=limit)
    except ValidationError as error:
        raise _wrong_option(error) from error


def _discard(reason: str) -> Discard:
    try:
        return Discard(reason=reason)
    except ValidationError as error:
        raise _wrong_option(error) from error


def _wrong_option(error: ValidationError) -> click.UsageError:
    return click.UsageError("; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors()))


def _call[T: BaseModel](
    method: str, path: str, expected: type[T], *, server: str | None, body: BaseModel | None = None
) -> T:
    """Call the fleet, and return its answer.

    Raises:
        OutsideError: see `command_line.remote.call`; also Permanent where the answer is no `expected`.
    """
    fleet = remote_fleet(server)
    content = None if body is None else body.model_dump_json(exclude_none=True).encode()
    answer = call(fleet, RemoteCall(method, path, content), deadline=BATCH_SECONDS)
    try:
        return expected.model_validate_json(answer)
    except ValidationError as error:
        raise Permanent(
            f"{fleet.url} answered with no {expected.__name__}: is it a Flotilla of this release?"
        ) from error


def _print_json(value: BaseModel) -> None:
    print_result(value.model_dump_json(indent=2, exclude_none=True))


def _print_page(page: DeadLetterPage, state: str) -> None:
    if not page.letters:
        print_note(f"no events are {state}")
        return
    table = Table("letter", "type", "since", "tries", "why", box=None, pad_edge=False, header_style="bold")
    for letter in page.letters:
        table.add_row(letter.id, _safe(letter.type), _ago(letter), str(letter.attempts), _safe(letter.reason[:300]))
    console = Console(highlight=False)
    table.columns[0].no_wrap = True
    console.print(table)
    if page.next is not None:
        print_note(f"there are more: --before {page.next}")


def _print_letter(letter: DeadLetter) -> None:
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


def _print_refused(refused: tuple[NotReplayed, ...]) -> None:
    for letter in refused:
        print_error(f"{letter.id}: {letter.detail}")


def _readable(data: bytes) -> str:
    """Return the data of an event for a person to read: JSON is indented, other text stays as it is."""
    try:
        text = to_json(from_json(data), indent=2).decode()
    except ValueError:
        text = data.decode(errors="replace")
    return _printable(text)


def _printable(text: str) -> str:
    """Return a text in which every unprintable character is replaced, wherever it is printed.

    `output.harmless` is not enough: these bytes come from strangers, and an operator may well page or copy them.
    """
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)


def _safe(text: str) -> str:
    return escape(_printable(text))


def _ago(letter: DeadLetter) -> str:
    seconds = int((datetime.now(UTC) - letter.place[0]).total_seconds())
    for name, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {name}"
    return f"{max(0, seconds)} s"

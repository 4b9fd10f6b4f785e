"""The way from a command to a running fleet, and how commands print: results to stdout, all else to stderr."""

import sys
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console

from command_line.settings import read_settings
from fleet.home import dev_key, open_home
from shared_clients.outbound import HttpClient

notes = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Server = Annotated[str | None, typer.Option(help="Base URL of the fleet; by default the one on this machine.")]


def server_of(url: str | None) -> HttpClient:
    """Return a client of the fleet at `url`, with the developer's key."""
    settings = read_settings()
    key = dev_key(open_home(settings.home), settings.auth_dev_key)
    return HttpClient(url or settings.url, headers={"Authorization": f"Bearer {key}"})


def print_json(value: BaseModel) -> None:
    sys.stdout.write(value.model_dump_json(indent=2, exclude_none=True) + "\n")

"""`flotilla up`: a whole fleet on this machine, in the foreground."""

from typing import Final

import click

from command_line.local import fleet_module

MAX_REPLICAS: Final = 16
"""Of one service on one machine."""


@click.command
@click.option("--processes", is_flag=True, help="A process per service, on real Postgres, Kafka and Redis.")
@click.option(
    "--replicas",
    multiple=True,
    metavar="SERVICE=N",
    help="With --processes: the number of processes of a service; may be repeated.",
)
def up(*, processes: bool, replicas: tuple[str, ...]) -> None:
    """Run the whole fleet with the web chat until Ctrl-C.

    It runs in this process, or with a process per service.
    """
    if replicas and not processes:
        raise click.UsageError(
            "--replicas: one process runs each service once: add --processes, or leave --replicas out"
        )
    counts = dict(_replica_count(option) for option in replicas)
    fleet_module("up").up(counts, processes=processes)


def _replica_count(option: str) -> tuple[str, int]:
    service, _, count = option.partition("=")
    if not (count.isascii() and count.isdecimal()) or not 1 <= int(count) <= MAX_REPLICAS:
        raise click.UsageError(f"--replicas: expected SERVICE=N with N from 1 to {MAX_REPLICAS}, and got {option!r}")
    return service, int(count)

"""`flotilla credentials`: the passwords, keys and triggers of a fleet of containers."""

from pathlib import Path

import click

from command_line.local import fleet_module


@click.command
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--database", required=True, metavar="ADDRESS", help="The address of Postgres: host[:port]/name.")
@click.option("--redis", required=True, metavar="ADDRESS", help="The address of Redis: host[:port].")
def credentials(folder: Path, database: str, redis: str) -> None:
    """Make the passwords and keys of a fleet of containers.

    They are written below FOLDER; files that exist are kept.
    """
    chosen_key = fleet_module("settings").read_settings().auth_dev_key
    fleet_module("credentials").write_credentials(folder, database=database, redis=redis, chosen_key=chosen_key)

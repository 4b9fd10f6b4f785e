"""`flotilla up`: the fleet on a laptop until Ctrl-C, in one process or with a process per service."""

import time
from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.markup import escape

from api_gateway.app import SCHEMA
from api_gateway.usecases.sign_in import make_code
from fleet.anchoring import EMBEDDED, SERVER, anchoring, load_witness
from fleet.app import FleetOptions, open_fleet
from fleet.embedding import ReportProgress
from fleet.processes import open_processes, open_stores
from fleet.settings import FleetSettings, read_settings
from fleet.state_folder import load_dev_key, open_state_folder
from service_process.serving import bind, run, serve, stop_signals
from service_process.web import draining
from shared_clients.errors import Permanent
from shared_clients.identity import DevKey
from shared_clients.postgres import Database, open_database
from shared_clients.telemetry import configure
from shared_models.agents import ConfigError

CONSOLE: Final = Console(stderr=True, highlight=False)


def up(replicas: Mapping[str, int], *, processes: bool) -> None:
    """Run the fleet until a signal comes; progress and addresses go to stderr.

    Args:
        replicas: with `processes`, the number of processes of a service; one where it is not named.
        processes: run a process per service.

    Raises:
        OutsideError: with the remedy: a taken port, a full disk, a wrong agent file, a part that does not start.
    """
    settings = read_settings()
    try:
        run(lambda: run_processes(settings, replicas) if processes else run_fleet(settings))
    except ConfigError as error:
        raise Permanent(str(error)) from error


async def run_fleet(settings: FleetSettings) -> None:
    """Run every service in this process until a signal comes.

    Raises:
        OutsideError: with the remedy: the port is taken, the disk is full, a part does not start.
    """
    configure("flotilla", level=settings.log_level, json=False)
    report_progress = progress_reporter()
    with stop_signals() as stop, bind("127.0.0.1", settings.port) as listener:
        state_folder = open_state_folder(settings.home)
        key = load_dev_key(state_folder, settings.chosen_key)
        witness = load_witness(settings, EMBEDDED)
        options = FleetOptions(state_folder, settings.allowed_hosts, key, settings.agent_configs, witness)
        async with open_fleet(options, report_progress) as gateway:
            await print_access(gateway.database, settings, key)
            report_progress("ready")
            await serve(
                gateway.app,
                host="127.0.0.1",
                port=settings.port,
                sockets=[listener],
                stop=stop,
                draining=draining(gateway.app).set,
            )
            progress_reporter()("stopping: handing back the runs in progress")
    CONSOLE.print("[dim]stopped[/dim]")


async def run_processes(settings: FleetSettings, replicas: Mapping[str, int]) -> None:
    """Run every service as a process, on real stores, until a signal comes.

    Raises:
        OutsideError: with the remedy.
    """
    configure("flotilla", level=settings.log_level, json=False)
    report_progress = progress_reporter()
    with stop_signals() as stop:
        bind("127.0.0.1", settings.port).close()
        state_folder = open_state_folder(settings.home)
        key = load_dev_key(state_folder, settings.chosen_key)
        async with (
            open_stores(settings, state_folder, report_progress) as stores,
            open_processes(settings, state_folder, key, stores, replicas=replicas, report_progress=report_progress),
            open_database(stores.database_url, SCHEMA) as database,
            anchoring(stores.database_url, load_witness(settings, SERVER)),
        ):
            await print_access(database, settings, key)
            report_progress(f"ready; logs are in {state_folder / 'logs'}")
            await stop.requested.wait()
            progress_reporter()("stopping")
    CONSOLE.print("[dim]stopped[/dim]")


def progress_reporter() -> ReportProgress:
    """Return a function that prints a line of progress with the seconds since now."""
    began = time.monotonic()

    def report_progress(step: str) -> None:
        CONSOLE.print(f"[dim]{time.monotonic() - began:5.1f} s[/dim]  {escape(step)}")

    return report_progress


async def print_access(database: Database, settings: FleetSettings, key: str) -> None:
    """Print how to reach the fleet: the single-use link for a browser, and the key for programs."""
    code = await make_code(database, DevKey(key).principal)
    base = f"http://localhost:{settings.port}"
    CONSOLE.print(f"\n  web chat   [bold]{base}/#code={code}[/bold]", soft_wrap=True)
    CONSOLE.print("             (the link signs one browser in, once; for another: flotilla link)")
    CONSOLE.print(f"  API        {base}/api/v1/requests", soft_wrap=True)
    CONSOLE.print(f"  API key    {escape(key)}", soft_wrap=True)
    CONSOLE.print('  terminal   flotilla ask "What time is it?"')
    CONSOLE.print("  stop       Ctrl-C\n")

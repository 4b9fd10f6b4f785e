"""`flotilla up`: the fleet on a laptop until Ctrl-C, in one process or with a process per service."""

import time
from collections.abc import Iterable, Mapping
from typing import Final

from rich.console import Console
from rich.markup import escape

from agent_service.adapters.agents import open_agents
from api_gateway.usecases.sign_in import make_code
from fleet.agents import describe_agents, list_edited_agents, read_fleet_agents
from fleet.anchoring import EMBEDDED, SERVER, anchoring, load_witness
from fleet.app import FleetOptions, open_fleet
from fleet.embedding import ReportProgress
from fleet.own_command import own_command
from fleet.processes import open_processes, open_stores
from fleet.settings import FleetSettings, read_settings
from fleet.state_folder import load_dev_key, open_state_folder
from service_process.serving import bind, run, serve, stop_signals
from service_process.web import draining
from shared_clients.identity import DevKey
from shared_clients.postgres import Database, open_database
from shared_clients.telemetry import configure
from shared_models.services import API_GATEWAY

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
    run(lambda: run_processes(settings, replicas) if processes else run_fleet(settings))


async def run_fleet(settings: FleetSettings) -> None:
    """Run every service in this process until a signal comes.

    Raises:
        OutsideError: with the remedy: the port is taken, the disk is full, a part does not start.
    """
    configure("flotilla", level=settings.log_level, json=False)
    report_progress = progress_reporter()
    with stop_signals() as stop, bind("127.0.0.1", settings.port) as listener:
        read = await read_fleet_agents(settings)
        state_folder = open_state_folder(settings.home)
        key = load_dev_key(state_folder, settings.chosen_key)
        report_progress("opening the models of the agents")
        witness = load_witness(settings, EMBEDDED)
        async with (
            open_agents(read.configuration, read.providers) as agents,
            open_fleet(
                FleetOptions(state_folder, settings.allowed_hosts, key, agents, witness), report_progress
            ) as gateway,
        ):
            await print_access(gateway.database, settings, key, describe_agents(read))
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
        read = await read_fleet_agents(settings)
        state_folder = open_state_folder(settings.home)
        key = load_dev_key(state_folder, settings.chosen_key)
        async with (
            open_stores(settings, state_folder, report_progress) as stores,
            open_processes(settings, state_folder, key, stores, replicas=replicas, report_progress=report_progress),
            open_database(stores.database_url, API_GATEWAY.schema) as database,
            anchoring(stores.database_url, load_witness(settings, SERVER)),
        ):
            await print_access(database, settings, key, describe_agents(read))
            for line in await list_edited_agents(f"http://localhost:{settings.port}", key):
                CONSOLE.print(f"  [yellow]{escape(line)}[/yellow]", soft_wrap=True)
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


async def print_access(database: Database, settings: FleetSettings, key: str, agents: Iterable[str]) -> None:
    """Print the agents and how to reach them: the single-use link for a browser, the key for programs, the commands."""
    code = await make_code(database, DevKey(key).principal)
    base, command = f"http://localhost:{settings.port}", own_command()
    _print_entry("agents", *map(escape, agents))
    _print_entry(
        "web chat",
        f"[bold]{base}/#code={code}[/bold]",
        f"(the link signs one browser in, once; for another: {command} link)",
    )
    _print_entry("API", f"{base}/api/v1/requests", f"described at {base}/docs")
    _print_entry("API key", escape(key))
    _print_entry("terminal", f'{command} ask "What time is it?"', f"{command} chat")
    _print_entry("try", "What can you do?", "What is 12 * (3 + 4)?", "Tell me a story, and stop it in the middle")
    _print_entry("trouble", f"{command} doctor")
    _print_entry("stop", "Ctrl-C")
    CONSOLE.print()


def _print_entry(name: str, *lines: str) -> None:
    for number, line in enumerate(lines):
        CONSOLE.print(f"  {'' if number else name:10} {line}", soft_wrap=True)

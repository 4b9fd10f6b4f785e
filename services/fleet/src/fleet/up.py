"""`flotilla up`: the fleet on a laptop, in one process, until Ctrl-C."""

import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.markup import escape

from api_gateway.app import SCHEMA
from api_gateway.usecases.sign_in import make_code
from fleet.anchoring import EMBEDDED, SERVER, anchoring, witness_of
from fleet.app import Place, open_fleet
from fleet.home import dev_key, open_home
from fleet.processes import open_processes, open_stores
from fleet.settings import FleetSettings
from service_process.serving import bind, run, serve, stop_signals
from service_process.web import draining
from shared_clients.errors import Permanent
from shared_clients.identity import DevKey
from shared_clients.postgres import Database, open_database
from shared_clients.telemetry import configure
from shared_models.agents import ConfigError


def up(replicas: Mapping[str, int], out: Console, *, processes: bool) -> None:
    """Run the fleet in this process, or with a process per service, until a signal comes.

    Args:
        replicas: with `processes`, how many of a service; one where it is not named.
        out: gets progress and addresses.
        processes: a process per service.

    Raises:
        OutsideError: with the remedy: a taken port, a full disk, a wrong agent file, a part that does not start.
    """
    settings = FleetSettings()
    try:
        run(lambda: run_processes(settings, replicas, out) if processes else run_fleet(settings, out))
    except ConfigError as error:
        raise Permanent(str(error)) from error


async def run_fleet(settings: FleetSettings, out: Console) -> None:
    """Run every service in this process until a signal comes.

    Raises:
        OutsideError: with what to do: the port is taken, the disk is full, a part does not start.
    """
    configure("flotilla", level=settings.log_level, json=False)
    began = time.monotonic()
    say = teller(out, began)
    with stop_signals() as stop, bind("127.0.0.1", settings.port) as listener:
        home = open_home(settings.home)
        key = dev_key(home, settings.auth_dev_key)
        place = Place(home, settings.hosts, key, settings.agent_configs, witness_of(settings, EMBEDDED))
        async with open_fleet(place, say) as gateway:
            await show_doors(gateway.database, settings, key, out)
            say("ready")
            await serve(
                gateway.app,
                host="127.0.0.1",
                port=settings.port,
                sockets=[listener],
                stop=stop,
                draining=draining(gateway.app).set,
            )
            began = time.monotonic()
            teller(out, began)("stopping: handing back what is going on")
    out.print("[dim]stopped[/dim]")


async def run_processes(settings: FleetSettings, replicas: Mapping[str, int], out: Console) -> None:
    """Run every service as a process, on real stores, until a signal comes.

    Raises:
        OutsideError: with what to do.
    """
    configure("flotilla", level=settings.log_level, json=False)
    say = teller(out, time.monotonic())
    with stop_signals() as stop:
        bind("127.0.0.1", settings.port).close()
        home = open_home(settings.home)
        key = dev_key(home, settings.auth_dev_key)
        async with (
            open_stores(settings, home, say) as stores,
            open_processes(settings, home, key, stores, replicas=replicas, say=say) as fleet,
            open_database(stores.database_url, SCHEMA) as database,
            anchoring(stores.database_url, witness_of(settings, SERVER)),
        ):
            await show_doors(database, settings, key, out)
            say(f"ready; logs are in {home / 'logs'}")
            await stop.requested.wait()
            teller(out, time.monotonic())("stopping")
            del fleet
    out.print("[dim]stopped[/dim]")


def teller(out: Console, began: float) -> Callable[[str], None]:
    """Return what prints a line of progress with the seconds since `began`."""

    def say(what: str) -> None:
        out.print(f"[dim]{time.monotonic() - began:5.1f} s[/dim]  {escape(what)}")

    return say


async def show_doors(database: Database, settings: FleetSettings, key: str, out: Console) -> None:
    """Print how to get in: the single-use link for a browser, and the key for programs."""
    code = await make_code(database, DevKey(key).principal)
    base = f"http://localhost:{settings.port}"
    out.print(f"\n  web chat   [bold]{base}/#code={code}[/bold]", soft_wrap=True)
    out.print("             (the link signs one browser in, once; for another: flotilla link)")
    out.print(f"  API        {base}/api/v1/requests", soft_wrap=True)
    out.print(f"  API key    {escape(key)}", soft_wrap=True)
    out.print('  terminal   flotilla ask "What time is it?"')
    out.print("  stop       Ctrl-C\n")

"""`make bench`: what Flotilla costs, as ratios to the least that does the same, taken in one run.

Prints a line a figure and writes `build/bench.json`. Needs the same machine as `make test`, and about four minutes.
"""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import psutil
from rich.console import Console

from fleet.migrate import migrate_all
from fleet.processes import Processes, Stores, open_processes, open_stores
from fleet.settings import FleetSettings
from local_backends.server import free_port
from shared_clients.errors import OutsideError
from shared_clients.identity import IDENTITY_HEADER, DevKey, Issuer, load_private
from tests.bench.measuring import Figure, Sample, Told, dump, figure, in_turn, spin
from tests.bench.wire import Wire, first
from tests.children import child

KEY: Final = "a-key-for-one-bench-run"
OUT: Final = Path("build") / "bench.json"
AGENT: Final = """\
apiVersion: flotilla/v1
kind: Agent
metadata: {name: assistant}
spec:
  model: {provider: openai, name: bench}
"""
TOKENS: Final = 1000
"""Words of each of the `STREAMS` answers by which CPU a token is counted."""
STREAMS: Final = 4
say = Console(stderr=True, highlight=False).print


@dataclass(frozen=True, slots=True)
class Ground:
    """What is compared, and with what.

    Attributes:
        home: of the fleet of processes.
        processes: one of each service, on Kafka.
        alone: base URL of a whole fleet in one process, without Kafka.
        accept: base URL of the bare accept.
        relay: base URL of the bare relay; `relay_pid` is its process.
    """

    home: Path
    processes: Processes
    alone: str
    accept: str
    relay: str
    relay_pid: int


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as folder:
        before = spin()
        async with _ground(Path(folder)) as ground:
            say("measuring: accept, the hop, first token, CPU a token")
            figures = [
                *await _accept(ground),
                await _first_token(ground, "P5", ground.processes.urls[0], "with Kafka, a process per service"),
                await _first_token(ground, "P4", ground.alone, "without Kafka, in one process"),
                await _cpu_per_token(ground),
            ]
        drift = abs(spin() / before - 1)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_bytes(dump(figures))
    sys.stdout.write("\n".join(one.line() for one in figures) + f"\nwritten to {OUT}\n")
    if drift > 0.15:
        say(f"[yellow]the machine's speed changed by {drift:.0%} during the run: take it again[/yellow]")


@asynccontextmanager
async def _ground(folder: Path) -> AsyncGenerator[Ground]:
    configs = folder / "agent-configs"
    (configs / "agents").mkdir(parents=True)
    (configs / "agents" / "assistant-v1.yaml").write_text(AGENT)
    async with AsyncExitStack() as stack:
        provider = free_port()
        await stack.enter_async_context(
            child(folder / "provider", ["tests.simulators.openai", "--port", str(provider)], provider)
        )
        os.environ |= {"OPENAI_BASE_URL": f"http://127.0.0.1:{provider}/v1", "OPENAI_API_KEY": "sk-bench"}
        os.environ |= {"FLOTILLA_AGENT_CONFIGS": str(configs), "FLOTILLA_AUTH_DEV_KEY": KEY}
        settings = FleetSettings(port=free_port(), agent_configs=configs)
        home = folder / "home"
        home.mkdir(mode=0o700)
        stores = await stack.enter_async_context(open_stores(settings, home, say))
        processes = await stack.enter_async_context(
            open_processes(settings, home, KEY, stores, replicas={}, report_progress=say)
        )
        alone = free_port()
        os.environ |= {"FLOTILLA_PORT": str(alone), "FLOTILLA_HOME": str(folder / "alone")}
        await stack.enter_async_context(child(folder / "alone-log", ["command_line", "up"], alone))
        accept, relay = free_port(), free_port()
        bare = await _another_database(stores)
        words = ["tests.bench.baseline", "accept", "--port", str(accept), "--to", bare]
        await stack.enter_async_context(child(folder / "accept", words, accept))
        words = ["tests.bench.baseline", "relay", "--port", str(relay), "--to", f"http://127.0.0.1:{provider}/v1"]
        relaying = await stack.enter_async_context(child(folder / "relay", words, relay))
        yield Ground(
            home,
            processes,
            f"http://localhost:{alone}",
            f"http://127.0.0.1:{accept}",
            f"http://127.0.0.1:{relay}",
            relaying.pid,
        )


async def _another_database(stores: Stores) -> str:
    """Return a database of the same server for the bare accept: its rows are none of our outbox's business."""
    url = stores.database_url.replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE DATABASE bench_baseline")
    await connection.close()
    bare = url.replace("/flotilla", "/bench_baseline", 1)
    await migrate_all(bare)
    return bare


async def _accept(ground: Ground) -> list[Figure]:
    """Compare the accept at request-manager's door, and the way through the gateway to it.

    Agents are held meanwhile: the runs that the accepts cause are another figure.
    """
    door = ground.processes.commands["request-manager-1"].url
    issuer = Issuer("api-gateway", load_private((ground.home / "gateway-key.pem").read_text()))
    principal = DevKey(KEY).principal
    body = b'{"content": "[sim words=1] hello"}'
    path = "/api/v1/requests"

    def identity() -> dict[str, str]:
        return {IDENTITY_HEADER: issuer.issue(principal, audience="request-manager", method="POST", path=path)}

    ground.processes.supervisor.signal("agent-service-1", signal.SIGSTOP)
    accept = Told("P1", "accept, at request-manager's door", "a bare ASGI app with the same commit", goal=1.5)
    hop = Told("P1hop", "accept, through the gateway", "the accept at request-manager's door")

    def at_the_door(wire: Wire) -> Sample:
        return lambda: _apart(wire.answer(wire.request(path, body, identity()), b"202"))

    async with Wire(door) as ours, Wire(ground.accept) as theirs:
        bare = theirs.request(path, body, {})
        pairs = await in_turn(at_the_door(ours), lambda: _apart(theirs.answer(bare, b"202")))
        figures = [figure(accept, pairs, each=10)]
    async with Wire(ground.processes.urls[0]) as gateway, Wire(door) as behind:
        asked = gateway.request(path, body, {"Authorization": f"Bearer {KEY}"})
        pairs = await in_turn(lambda: _apart(gateway.answer(asked, b"202")), at_the_door(behind))
        figures.append(figure(hop, pairs, each=10))
    ground.processes.supervisor.signal("agent-service-1", signal.SIGCONT)
    await _quiet(ground)
    return figures


async def _apart(taking: Awaitable[float]) -> float:
    """Take a sample, and leave a moment for what goes on behind the answer: requests come at a rate, not in a row."""
    seconds = await taking
    await asyncio.sleep(0.004)
    return seconds


async def _quiet(ground: Ground) -> None:
    """Wait until the runs of what was accepted have ended."""
    connection = await asyncpg.connect(ground.processes.stores.database_url.replace("+asyncpg", ""))
    async with asyncio.timeout(300):
        while await connection.fetchval("SELECT count(*) FROM request_manager.requests WHERE completed_at IS NULL"):
            await connection.execute("SELECT pg_sleep(0.5)")
    await connection.close()


async def _first_token(ground: Ground, id_: str, url: str, how: str) -> Figure:
    """Compare the time from asking to the first token, on a new connection each."""
    asked = b'{"content": "[sim words=20] hello"}'
    ours = Wire(url).request("/chat", asked, {"Authorization": f"Bearer {KEY}"})
    theirs = Wire(ground.relay).request("/chat", asked, {})

    async def platform() -> float:
        return await first(url, ours, b'"TEXT_MESSAGE_CONTENT"')

    async def relay() -> float:
        return await first(ground.relay, theirs, b'"content":')

    told = Told(id_, f"first token, {how}", "a bare relay that stores nothing")
    return figure(told, await in_turn(platform, relay, rounds=30, each=3), each=3)


async def _cpu_per_token(ground: Ground) -> Figure:
    """Compare the CPU of all our processes for one token with the relay's; the split is ours by process."""
    asked = b'{"content": "[sim words=%d token_ms=1] hello"}' % TOKENS
    url = ground.processes.urls[0]
    ours = Wire(url).request("/chat", asked, {"Authorization": f"Bearer {KEY}"})
    theirs = Wire(ground.relay).request("/chat", asked, {})
    pids = {name: ground.processes.supervisor.pid(name) for name in ground.processes.commands}
    spent = dict.fromkeys(pids, 0.0)

    async def platform() -> float:
        before = {name: _cpu(pid) for name, pid in pids.items()}
        await asyncio.gather(*(first(url, ours, b"RUN_FINISHED") for _ in range(STREAMS)))
        used = {name: _cpu(pid) - before[name] for name, pid in pids.items()}
        for name, seconds in used.items():
            spent[name] += seconds
        return sum(used.values()) / (STREAMS * TOKENS)

    async def relay() -> float:
        before = _cpu(ground.relay_pid)
        await asyncio.gather(*(first(ground.relay, theirs, b'"content":') for _ in range(STREAMS)))
        return (_cpu(ground.relay_pid) - before) / (STREAMS * TOKENS)

    rounds = 10
    told = Told("P7", "CPU a token, all our processes", "a bare relay", unit="us", scale=1e6)
    pairs = await in_turn(platform, relay, rounds=rounds, each=1)
    share = sum(ours for ours, _ in pairs) / len(pairs) / sum(spent.values())
    return figure(told, pairs, each=1, split={name: seconds * share * 1e6 for name, seconds in spent.items()})


def _cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except OutsideError as error:
        sys.exit(str(error))

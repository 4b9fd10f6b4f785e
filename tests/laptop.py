"""A fleet on a laptop, started and stopped with the command line as a person does it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
import psutil
import pytest

from command_line.commands import main

ROOT = Path(__file__).parents[1]
READY_SECONDS = 90.0
FAULTY_AGENTS = {
    "long-winded": "{kind: length, after: 2}",
    "busy-once": "{kind: rate_limit, retry_after: 0, times: 1}",
}
AGENT = """
apiVersion: flotilla/v1
kind: Agent
metadata: {{name: {name}}}
spec: {{model: {{provider: scripted, name: {name}}}}}
"""
SCRIPT = """
apiVersion: flotilla/v1
kind: ModelScript
metadata: {{name: {name}}}
spec: {{default: {{text: One two three., fault: {fault}}}}}
"""


@dataclass(frozen=True, slots=True)
class Laptop:
    """Where a fleet lives between two starts."""

    home: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        return {
            "FLOTILLA_HOME": str(self.home),
            "FLOTILLA_PORT": str(self.port),
            "FLOTILLA_AGENT_CONFIGS": str(self.home.with_name("agent-configs")),
        }

    def client(self) -> httpx.Client:
        key = (self.home / "dev-key").read_text()
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        """Start a command in a process of its own, as a shell does."""
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **self.settings, **settings}
        command = [sys.executable, "-m", "command_line", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, text=True, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe)

    def run(self, *words: str, input: str = "", **settings: str) -> subprocess.CompletedProcess[str]:  # noqa: A002 - as in subprocess
        with self.start(*words, **settings) as process:
            out, err = process.communicate(input, timeout=120)
            return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @contextmanager
    def up(self) -> Iterator["Up"]:
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **self.settings}
        command = [sys.executable, "-m", "command_line", "up"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
            started = Up(process, [])
            try:
                started.wait_for("ready")
                yield started
            finally:
                if process.poll() is None:
                    process.kill()


@dataclass
class Up:
    """A `flotilla up` that runs."""

    process: subprocess.Popen[str]
    said: list[str]

    def wait_for(self, word: str) -> None:
        assert self.process.stderr is not None
        began = monotonic()
        for line in self.process.stderr:
            self.said.append(line)
            if line.strip().endswith(word):
                return
            assert monotonic() - began < READY_SECONDS, self.said
        raise AssertionError(f"it ended without saying {word}: {''.join(self.said)}")

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> "Stopped":
        children = self.children()
        began = monotonic()
        self.process.send_signal(signal.SIGINT)
        assert self.process.stderr is not None
        rest = self.process.stderr.read()
        status = self.process.wait(20)
        return Stopped(status, monotonic() - began, len(children), [one for one in children if alive(one)], rest)


@dataclass(frozen=True, slots=True)
class Stopped:
    """How it ended."""

    status: int
    seconds: float
    had: int
    left: Sequence[psutil.Process]
    said: str


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def write_configs(laptop: Laptop) -> None:
    """Write the shipped agents for a laptop, and two whose models have a fault."""
    configs = shutil.copytree(ROOT / "agent-configs", laptop.home.with_name("agent-configs"))
    for name, fault in FAULTY_AGENTS.items():
        (configs / "agents" / f"{name}-v1.yaml").write_text(AGENT.format(name=name))
        (configs / "scripts" / f"{name}.yaml").write_text(SCRIPT.format(name=name, fault=fault))


def flotilla(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], *words: str) -> int:
    """Run the command line in this process, and return its exit status."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["flotilla", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    if isinstance(ended.value.code, str):
        sys.stderr.write(f"{ended.value.code}\n")  # as the interpreter does
        return 1
    return int(ended.value.code or 0)


def only_line(printed: str) -> str:
    [line] = printed.strip().splitlines()
    assert "Traceback" not in line
    return line

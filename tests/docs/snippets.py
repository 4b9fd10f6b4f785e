"""The snippets of a page, run as a reader runs them: files are written, `make up` starts a fleet, commands follow.

Three things differ from a reader's hour: the port is free, a `…` has a value, and a provider is the simulator.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from local_backends.server import free_port

ROOT: Final = Path(__file__).parents[2]
FENCE: Final = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE: Final = re.compile(r"Write this into\s+`(?P<path>[^`]+)`:\s*\Z")
UP: Final = re.compile(r"(?P<variables>(?:[A-Z_]+=\S+ )*)make up\b")
ELSEWHERE: Final = {
    "docker ": "needs Docker; tools/compose-test.sh runs them",
    "make test": "runs this test",
    "up --processes": "tests/processes runs it, on stores of its own",
    "<letter>": "needs a dead letter; test_dead_letters_command.py runs them",
    "FLOTILLA_TEST_URL": "needs a deployed fleet",
    "mock-eventing": "needs Docker; tools/compose-test.sh runs them",
    "kafka-acls.sh": "needs Kafka's own tools; test_kafka_acls.py holds the rules",
    "acl --allow-principal": "likewise",
}
"""Parts of lines that are not run here, and the reason."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        line: of its fence, from 1.
        file: the path that the sentence before it names.
    """

    line: int
    language: str
    text: str
    file: str | None


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    found = []
    for match in FENCE.finditer(page):
        named = FILE.search(page[: match.start()])
        line = page.count("\n", 0, match.start()) + 1
        found.append(Block(line, match["language"], match["text"], named["path"] if named else None))
    return found


def runnable(text: str) -> list[str]:
    """Return the commands of a block, a continued one as one text, without those that run elsewhere."""
    commands = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [line for line in commands if line.strip() and not any(part in line for part in ELSEWHERE)]


@dataclass
class Reader:
    """A person with a fresh checkout, who does what a page says.

    Attributes:
        folder: the checkout.
        provider: the address of the simulated provider, with OpenAI's API.
        seen: everything that was printed.
    """

    folder: Path
    provider: str
    port: int = field(default_factory=free_port)
    seen: str = ""

    def __post_init__(self) -> None:
        shutil.copytree(ROOT / "agent-configs", self.folder / "agent-configs")
        shutil.copy(ROOT / "flotilla", self.folder)
        (self.folder / ".venv").symlink_to(ROOT / ".venv")

    def follow(self, page: str) -> None:
        """Do what the page says, from the first block to the last; the first block that needs one starts a fleet."""
        parts: list[tuple[dict[str, str], list[str]]] = [({}, [])]
        written: list[Block] = []
        for block in blocks(page):
            if block.file is not None:
                written.append(block)
            for line in runnable(block.text) if block.language == "sh" else []:
                if started := UP.match(line):
                    parts.append((dict(pair.split("=", 1) for pair in started["variables"].split()), []))
                else:
                    parts[-1][1].append(line)
        for block in written:
            assert block.file is not None
            (self.folder / block.file).write_text(block.text)
        if not parts[0][1]:
            parts.pop(0)
        for variables, commands in parts:
            with self._fleet(variables):
                self._run(commands)

    @property
    def _environment(self) -> dict[str, str]:
        own = {"FLOTILLA_PORT": str(self.port), "COLUMNS": "200"}
        return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **own}

    @contextmanager
    def _fleet(self, variables: dict[str, str]) -> Iterator[None]:
        given = {name: value.replace("…", "sk-test") for name, value in variables.items()}
        if given:
            given["OPENAI_BASE_URL"] = self.provider
        command = ["./flotilla", "up"]
        environment = {**self._environment, **given}
        with subprocess.Popen(command, cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True) as up:
            assert up.stderr is not None
            try:
                for line in up.stderr:
                    self.seen += line
                    if line.rstrip().endswith(" ready"):
                        break
                else:
                    raise AssertionError(f"the fleet ended before it was ready: {self.seen}")
                yield
                up.send_signal(signal.SIGINT)
                self.seen += up.stderr.read()
                assert up.wait(30) == 0, self.seen
            finally:
                up.kill()

    def _run(self, commands: list[str]) -> None:
        script = "\n".join(commands).replace("localhost:8080", f"localhost:{self.port}").replace("…", "test")
        done = subprocess.run(
            ["bash", "-eu", "-c", script],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        self.seen += done.stdout
        assert done.returncode == 0, f"status {done.returncode} of:\n{script}\n{self.seen}"

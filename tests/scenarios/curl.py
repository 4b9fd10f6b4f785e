"""The real `curl`, as people try an API with: one call, and its answer as curl prints it with `--include`."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from tests.fleets import Fleet

CUT_BY_US = 28
"""curl's exit status when `--max-time` is over."""


@dataclass(frozen=True, slots=True)
class Printed:
    """What curl printed.

    Attributes:
        status: of the answer.
        headers: by their names in lower case.
        body: as text.
        whole: the answer had an end.
    """

    status: int
    headers: Mapping[str, str]
    body: str
    whole: bool

    def json(self) -> Any:
        return from_json(self.body)

    @property
    def events(self) -> list[tuple[str, Any]]:
        """The server-sent events that are whole: id and data of each."""
        blocks = self.body.replace("\r\n", "\n").split("\n\n")[:-1]
        lines = [block.split("\n") for block in blocks if block.startswith("id: ")]
        return [(id_.removeprefix("id: "), from_json(data.removeprefix("data: "))) for id_, data in lines]


@dataclass(frozen=True, slots=True)
class Curl:
    """curl, with a fleet to call."""

    fleet: Fleet

    def __call__(self, path: str, *arguments: str, key: str | None = "", seconds: float = 20) -> Printed:
        """Call a path.

        Args:
            path: below the gateway's URL.
            arguments: further ones, as curl takes them.
            key: instead of the developer's; None for no Authorization at all.
            seconds: after which curl hangs up.
        """
        program = shutil.which("curl")
        assert program, "these tests need curl: `apt-get install curl`"
        authorization = [] if key is None else ["--header", f"Authorization: Bearer {key or self.fleet.key}"]
        command = [program, "--silent", "--show-error", "--include", "--no-buffer", "--max-time", str(seconds)]
        done = subprocess.run(
            [*command, *authorization, *arguments, f"{self.fleet.urls[0]}{path}"],
            capture_output=True,
            check=False,
            timeout=seconds + 10,
        )
        assert done.returncode in {0, CUT_BY_US}, done.stderr.decode()
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Printed(int(first.split()[1]), headers, body.decode(), done.returncode == 0)

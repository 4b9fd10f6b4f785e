"""The real `curl`, as people try an API with: one call, and its answer as curl prints it with `--include`."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from tests.fleets import Fleet

SECONDS = 20
"""After which curl gives up."""


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

    def __call__(self, path: str, *arguments: str, key: str | None = "", leave_after: int = 0) -> Printed:
        """Call a path.

        Args:
            path: below the gateway's URL.
            arguments: further ones, as curl takes them.
            key: instead of the developer's; None for no Authorization at all.
            leave_after: bytes after which curl is ended, in the middle of a stream; 0 for never.
        """
        program = shutil.which("curl")
        assert program, "these tests need curl: `apt-get install curl`"
        authorization = [] if key is None else ["--header", f"Authorization: Bearer {key or self.fleet.key}"]
        command = [program, "--silent", "--show-error", "--include", "--no-buffer", "--max-time", str(SECONDS)]
        command += [*authorization, *arguments, f"{self.fleet.urls[0]}{path}"]
        printed = b""
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as curl:
            assert curl.stdout is not None
            while piece := curl.stdout.read(65_536):
                printed += piece
                if 0 < leave_after <= len(printed):
                    curl.terminate()
                    break
        assert leave_after or curl.returncode == 0, f"curl ended with status {curl.returncode}"
        head, _, body = printed.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Printed(int(first.split()[1]), headers, body.decode(errors="replace"), curl.returncode == 0)

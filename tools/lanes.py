"""Runs targets of the Makefile in parallel lanes, and prints the output of each target in one block.

    python -m tools.lanes check,unit web-check,browser     two lanes, each one target after the other

A target prints one line when it begins and one when it ends; its whole output follows, as if it had run alone. A target
that fails stops nothing: the others still tell what they found. The last lines are the seconds of each target. The exit
code is 1 if any target failed.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final

MAKE_VARIABLES: Final = frozenset({"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKE_TERMOUT", "MAKE_TERMERR"})
"""Variables by which make talks to its children; they are removed, because the job server is not passed on."""
STOP_SECONDS: Final = 30.0
"""Seconds a target has for clearing up once it is asked to stop."""


@dataclass(frozen=True, slots=True)
class TargetResult:
    """How a target ended: its exit code and the seconds that it took."""

    target: str
    code: int
    seconds: float


class Lanes:
    """Lanes of targets that run side by side.

    Args:
        command: what runs a target, such as `make --no-print-directory`; its name is added.
        write: takes whole lines; it is called by one thread at a time.
    """

    def __init__(self, command: Sequence[str], write: Callable[[str], object]) -> None:
        self._command = command
        self._write = write
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, lanes: Sequence[Sequence[str]]) -> list[TargetResult]:
        """Run every target of every lane, and return how each ended, in the order of the lanes."""
        with ThreadPoolExecutor(max_workers=len(lanes)) as pool:
            return [result for lane in pool.map(self._run_lane, lanes) for result in lane]

    def stop(self) -> None:
        """Start no further target, interrupt the running ones as Ctrl-C does, and kill those that do not end."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGINT)
        for process in running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)

    def _run_lane(self, targets: Sequence[str]) -> list[TargetResult]:
        return [result for target in targets if (result := self._run_target(target)) is not None]

    def _run_target(self, target: str) -> TargetResult | None:
        began = time.monotonic()
        with self._lock:
            if self._stopped:
                return None
            self._write(f"-- {target}: started\n")
            process = subprocess.Popen(  # noqa: S603 - targets of our own Makefile
                [*self._command, target],
                env={name: value for name, value in os.environ.items() if name not in MAKE_VARIABLES},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
        printed, _ = process.communicate()
        result = TargetResult(target, process.returncode, time.monotonic() - began)
        text = printed.decode(errors="replace")
        with self._lock:
            self._running.discard(process)
            self._write(f"-- {target}: {_end(result)} after {result.seconds:.0f} s\n")
            self._write(text if text.endswith("\n") or not text else f"{text}\n")
        return result


def table(results: Sequence[TargetResult], seconds: float) -> str:
    """Return a line for each target and one for all of them."""
    width = max(len(result.target) for result in results)
    lines = [f"{result.target:<{width}}  {result.seconds:5.0f} s  {_end(result)}" for result in results]
    failed = [result.target for result in results if result.code]
    end = f"failed: {', '.join(failed)}" if failed else "all passed"
    return "\n".join([*lines, f"{'in all':<{width}}  {seconds:5.0f} s  {end}", ""])


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a target and all that it started; it may have ended meanwhile."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end(result: TargetResult) -> str:
    return f"FAILED with {result.code}" if result.code else "passed"


def main(lanes: Sequence[str]) -> int:
    """Run the lanes with make, and return the exit code; a signal stops all of them."""
    if not lanes:
        sys.stderr.write("lanes: expected lanes of targets, such as `check,unit web-check,browser`\n")
        return 2

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    running = Lanes(["make", "--no-print-directory"], write)

    def stop(number: int, _: FrameType | None) -> None:
        threading.Thread(target=running.stop).start()
        write(f"-- stopped by {signal.Signals(number).name}\n")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    began = time.monotonic()
    results = running.run([lane.split(",") for lane in lanes])
    wanted = sum(len(lane.split(",")) for lane in lanes)
    if results:
        write(f"== seconds\n{table(results, time.monotonic() - began)}")
    return int(len(results) < wanted or any(result.code for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m tests.chaos [--short] [--seed N] [F1 F2 …]`: breaks everything that can break, and keeps the score.

Prints the scoreboard, writes it to `build/chaos.json`, and ends with an error if anything did not hold. The logs and
histories of a run are kept, and their place is told, when something was found.
"""

import argparse
import asyncio
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from shared_clients.errors import OutsideError
from tests.chaos.ground import Shape, open_ground, open_stores
from tests.chaos.playing import Played, play
from tests.chaos.registry import Scenario, scenarios
from tests.chaos.scoreboard import dump, table

OUT: Final = Path("build") / "chaos.json"
STRANGERS: Final = ("FLOTILLA_", "OPENAI_", "ANTHROPIC_", "OTEL_", "PG")


async def run(chosen: Sequence[Scenario], *, short: bool, seed: int, folder: Path) -> list[Played]:
    """Play scenarios, those of one shape on one fleet."""
    shapes: dict[Shape, list[Scenario]] = defaultdict(list)
    for scenario in chosen:
        shapes[scenario.shape].append(scenario)
    played = []
    async with open_stores(folder / "stores") as stores:
        for number, (shape, alike) in enumerate(shapes.items(), start=1):
            say(f"starting fleet {number} of {len(shapes)}")
            async with open_ground(folder / f"fleet-{number}", stores, shape) as ground:
                for scenario in alike:
                    say(f"{scenario.name}: {scenario.title}")
                    played.append(await play(ground, scenario, short=short, seed=seed))
                    say(table([played[-1].score]))
                    if not played[-1].good:
                        say(played[-1].told)
    return played


def main() -> int:
    known = scenarios()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the form that `make test-all` plays")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or secrets.randbelow(10**6)))
    parser.add_argument("--keep", action="store_true", help="keep logs and histories in any case")
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(known)}; without any, all")
    given = parser.parse_args()
    if unknown := set(given.scenarios) - set(known):
        parser.error(f"there is no scenario {min(unknown)}; there are {', '.join(known)}")
    for name in [name for name in os.environ if name.startswith(STRANGERS)]:
        del os.environ[name]
    logging.basicConfig(level=logging.CRITICAL)  # clients of killed stores have much to say
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    chosen = [scenario for name, scenario in known.items() if name in given.scenarios or not given.scenarios]
    folder = Path(tempfile.mkdtemp(prefix="flotilla-chaos-"))
    say(f"seed {given.seed}; logs in {folder}")
    try:
        played = asyncio.run(run(chosen, short=given.short, seed=given.seed, folder=folder))
    except OutsideError as error:
        say(f"{error}\nlogs: {folder}")
        return 1
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_bytes(dump([one.score for one in played]))
    bad = [one for one in played if not one.good]
    sys.stdout.write(f"\n{table([one.score for one in played])}\nwritten to {OUT}\n")
    if bad or given.keep:
        sys.stdout.write(f"logs and histories: {folder}\n")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


def say(what: str) -> None:
    sys.stderr.write(f"{what}\n")


if __name__ == "__main__":
    sys.exit(main())

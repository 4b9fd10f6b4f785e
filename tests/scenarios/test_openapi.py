"""The whole API is asked what its OpenAPI document allows and what it forbids: fitting data, broken data, in sequences.

Faked: nothing. schemathesis makes the calls, and checks every answer: no 5xx, only documented codes, types and bodies,
nothing accepted that the schema forbids, nothing answered without an identity that needs one.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT
from tests.fleets import Fleet

PROGRAM = Path(sys.executable).with_name("schemathesis")
DOCUMENT = ROOT / "docs" / "reference" / "openapi.json"
CONFIG = Path(__file__).with_name("schemathesis.toml")


def ask(fleet: Fleet, document: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Have the fleet asked everything in a document; the folder gets what schemathesis leaves."""
    command = [str(PROGRAM), "--config-file", str(CONFIG), "run", str(document), "--url", fleet.urls[0]]
    command += ["--header", f"Authorization: Bearer {fleet.key}", "--request-timeout", "30", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=folder)


def test_the_api_is_as_its_document_says(
    one_process_fleet: Fleet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    examples = 4 if request.config.option.sample else 12
    asked = ask(one_process_fleet, DOCUMENT, tmp_path, "--max-examples", f"{examples}", "--continue-on-failure")
    assert asked.returncode == 0, asked.stdout[-12_000:] + asked.stderr[-2_000:]


def test_an_api_that_is_not_as_its_document_says_is_found_out(one_process_fleet: Fleet, tmp_path: Path) -> None:
    told = json.loads(DOCUMENT.read_text())
    told["components"]["schemas"]["Accepted"]["required"].append("horoscope")
    wrong = tmp_path / "openapi.json"
    wrong.write_text(json.dumps(told))
    only = ["--include-path", "/api/v1/requests", "--include-method", "POST"]
    asked = ask(one_process_fleet, wrong, tmp_path, *only, "--max-examples", "3", "--phases", "fuzzing")
    assert asked.returncode == 1, asked.stdout[-4_000:]
    assert "horoscope" in asked.stdout

"""No statement of a service changes or deletes an audit entry or a seal; migrations only make their tables."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHANGE = re.compile(
    r"\b(UPDATE|DELETE\s+FROM|TRUNCATE(\s+TABLE)?|MERGE\s+INTO)\s+(ONLY\s+)?audit_(entries|seals)\b", re.IGNORECASE
)


def changes(text: str) -> list[str]:
    return [match[0] for match in CHANGE.finditer(text)]


def test_no_statement_changes_the_audit_log() -> None:
    sources = [path for folder in ("services", "shared-clients") for path in (ROOT / folder).glob("**/src/**/*.py")]
    assert any(path.name == "sealing.py" for path in sources)
    assert {path.name: found for path in sources if (found := changes(path.read_text()))} == {}


@pytest.mark.parametrize(
    "planted", ["DELETE FROM audit_seals", "update\n  audit_entries SET x = 1", "TRUNCATE audit_seals"]
)
def test_planted_change_is_found(planted: str) -> None:
    assert changes(planted)

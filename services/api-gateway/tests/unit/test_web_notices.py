"""The web chat keeps its own copy of the notices by status, so a test compares it with the catalogue."""

import re
from pathlib import Path

from shared_models.requests import FAILURES, STATES, FailureReason

WEB = Path(__file__).parents[2] / "web" / "src"


def copied(file: str, constant: str) -> dict[str, str]:
    """Return the entries of a constant of the web chat, which holds one text for each key."""
    source = (WEB / file).read_text()
    [body] = re.findall(rf"const {constant}: [^=]+= {{\n(.*?)\n}};", source, flags=re.DOTALL)
    return dict(re.findall(r"(\w+): '([^']+)',", body))


def test_web_chat_has_the_notices_of_the_catalogue() -> None:
    assert copied("state/thread.ts", "NOTICES") == {
        status.value: state.notice for status, state in STATES.items() if state.notice is not None
    }


def test_web_chat_has_a_title_for_every_failure_that_it_shows() -> None:
    # A failure of our own needs no title: the chat then says that no answer was made. A cancelled run shows no error.
    untitled = {FailureReason.INTERNAL, FailureReason.CANCELLED_BY_CALLER}
    assert {reason.value for reason in set(FAILURES) - untitled} <= set(copied("views/answer.tsx", "FAILURES"))

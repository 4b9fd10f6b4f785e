"""What README and how-tos tell people to type works as it is printed, and shows what they promise."""

import subprocess
from pathlib import Path

import pytest

from agent_service.adapters.scripts import ModelScript
from shared_models.agents import Agent, parse_document
from tests.docs.snippets import ELSEWHERE, ROOT, Reader, blocks, runnable

PROMISES = {
    "README.md": (
        "Hello! I am the assistant",
        "TEXT_MESSAGE_CONTENT",
        "sim of openai at",
        "You said: What time is it?",
    ),
    "docs/howto/agents.md": ("pirate (version 1): a script", "That makes **42**.", "because OPENAI_BASE_URL is set"),
    "docs/howto/model-scripts.md": ("greeter (version 1): a script (scripts/greeter.yaml)", "Hello, Ada!", "It is "),
    "docs/howto/api.md": (
        "Your name is **Ada**",
        "RUN_STARTED",
        "There is no agent nobody. The agents are: assistant.",
    ),
    "docs/howto/audit.md": ("verdict", "good"),
    "docs/howto/dead-letters.md": ("no events are dead", "no events are tried again by themselves", "replayed: 0"),
    "docs/howto/doctor.md": ('"ok": true',),
}
"""The texts that are printed by the time that a page is done."""
READERS = {
    "readme": ["README.md"],
    "agents": ["docs/howto/agents.md"],
    "scripts": ["docs/howto/model-scripts.md"],
    "commands": [f"docs/howto/{name}.md" for name in ("api", "audit", "dead-letters", "doctor")],
}
"""The pages that one reader follows; those that need no more than a running fleet share one."""
PAGES = sorted(["README.md", *(f"docs/howto/{path.name}" for path in (ROOT / "docs" / "howto").glob("*.md"))])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("pages", READERS.values(), ids=READERS)
def test_pages_keep_their_promises(pages: list[str], tmp_path: Path, simulator_url: str) -> None:
    reader = Reader(tmp_path, simulator_url)
    reader.follow("\n".join((ROOT / page).read_text() for page in pages))
    for promise in (promise for page in pages for promise in PROMISES[page]):
        assert promise in reader.seen, reader.seen
    assert "Traceback" not in reader.seen


def test_every_page_with_promises_has_a_reader() -> None:
    assert sorted(page for pages in READERS.values() for page in pages) == sorted(PROMISES)


@pytest.mark.parametrize("page", PAGES)
def test_snippets_of_every_page_can_be_read(page: str) -> None:
    for block in blocks((ROOT / page).read_text()):
        if block.language == "sh":
            text = block.text.replace("<letter>", "letter")
            done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{page}:{block.line}: {done.stderr}"
        if block.language == "yaml" and "kind:" in block.text:
            parse_document(f"{page}:{block.line}", block.text, ModelScript if "ModelScript" in block.text else Agent)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in PROMISES])
def test_commands_of_other_pages_run_elsewhere(page: str) -> None:
    """Every page is followed from top to bottom, or names only commands that run elsewhere."""
    lines = [
        line for block in blocks((ROOT / page).read_text()) if block.language == "sh" for line in runnable(block.text)
    ]
    assert [line for line in lines if not line.startswith(("export ", "#"))] == [], f"add {page} to PROMISES"


def test_each_reason_to_run_a_command_elsewhere_is_still_needed() -> None:
    everything = "\n".join((ROOT / page).read_text() for page in PAGES)
    assert [part for part in ELSEWHERE if part not in everything] == []

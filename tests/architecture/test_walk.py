import pytest

from tests.architecture.sources import ROOT, planted, workspace_sources
from tests.architecture.walk import read_steps, walk_complaints

PAGE = ROOT / "docs" / "architecture" / "follow-one-request.md"

CODE = (
    planted("def chat():\n    call('/requests')\n", "api_gateway.api"),
    planted("router = Router('/requests')\n\n@router.post\ndef create():\n    accept()\n", "request_manager.api"),
    planted("def accept():\n    new_event(CREATED)\n", "request_manager.usecases.accept"),
    planted("CREATED = 'created'\n", "shared_models.catalog"),
    planted("class Door:\n    def on_it(self): ...\nREACTIONS = {CREATED: Door.on_it}\n", "agent_service.events"),
)
STORY = """
| # | function | reached | what happens |
|---|---|---|---|
| 1 | `api_gateway.api.chat` | | the door |
| 2 | `request_manager.api.create` | 1 → `"/requests"` ← `request_manager.api.router` ← | the next door |
| 3 | `request_manager.usecases.accept.accept` | 2 → | it is written down |
| 4 | `agent_service.events.Door.on_it` | 3 → `shared_models.catalog.CREATED` ← `agent_service.events.REACTIONS` → | |
"""


def test_the_code_walks_as_the_page_tells() -> None:
    complaints = walk_complaints(PAGE.read_text(), workspace_sources())
    assert not complaints, "\n".join(complaints)


def test_the_page_walks_through_every_service_of_the_spine() -> None:
    packages = {step.function.partition(".")[0] for step in read_steps(PAGE.read_text())}
    assert packages == {"api_gateway", "request_manager", "agent_service", "durable_work", "run_frames"}


def test_a_true_story_is_believed() -> None:
    assert walk_complaints(STORY, CODE) == []


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("api.chat", "api.talk", "there is no api_gateway.api.talk"),
        ("| 3 |", "| 5 |", "expected number 3"),
        ("2 →", "1 →", "does not name accept"),
        ("2 →", "4 →", "does not come before"),
        ("2 →", "somehow", "cannot read how it is reached"),
        ('"/requests"', '"/elsewhere"', "does not hold the text"),
        ("catalog.CREATED", "catalog.LOST", "there is no shared_models.catalog.LOST"),
        ("REACTIONS` →", "REACTIONS` ←", "does not name REACTIONS"),
        ("|", "", "no table"),
    ],
)
def test_a_false_story_is_found_out(before: str, after: str, complaint: str) -> None:
    assert [line for line in walk_complaints(STORY.replace(before, after), CODE) if complaint in line]


def test_a_hop_that_leaves_the_code_is_found_out() -> None:
    changed = (*CODE[:2], planted("def accept():\n    pass\n", "request_manager.usecases.accept"), *CODE[3:])
    assert [line for line in walk_complaints(STORY, changed) if "does not name CREATED" in line]


def test_too_many_files_are_found_out() -> None:
    many = tuple(planted(f"def f{n}():\n    f{n + 1}()\n", f"fleet.m{n}") for n in range(9))
    story = "\n".join(f"| {n + 1} | `fleet.m{n}.f{n}` | {f'{n} →' if n else ''} | |" for n in range(9))
    (found,) = walk_complaints(story, many)
    assert "opens 9 files, at most 8" in found


def test_too_many_lines_are_found_out() -> None:
    long = planted("def f():\n" + "    x = 1\n" * 600, "fleet.long")
    (found,) = walk_complaints("| 1 | `fleet.long.f` | | |", (long,))
    assert "601 lines, at most 600" in found

from collections.abc import Callable, Iterator

import pytest

from tests.architecture import texts
from tests.architecture.sources import ROOT, committed_files, member_folders

Rule = Callable[[str, str], Iterator[str]]

PAGES = ["README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "Makefile"]


def committed_texts() -> Iterator[tuple[str, str]]:
    for path in committed_files():
        content = (ROOT / path).read_bytes()
        if b"\0" not in content[:8192]:
            yield path, content.decode()


@pytest.mark.parametrize("rule", texts.RULES, ids=lambda rule: rule.__name__)
def test_committed_texts_keep_the_rules(rule: Rule) -> None:
    complaints = [complaint for path, text in committed_texts() for complaint in rule(path, text)]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("page", PAGES)
def test_the_front_pages_are_there(page: str) -> None:
    assert (ROOT / page).is_file()


def test_every_package_says_what_it_owns() -> None:
    assert [folder.name for folder in member_folders() if not (folder / "README.md").is_file()] == []


@pytest.mark.parametrize(
    ("rule", "path", "text", "complaint"),
    [
        (texts.strange_places, "a.md", "see " + "/home" + "/ada/flotilla", "a.md:1"),
        (texts.strange_places, "a.py", "x = '" + "/tmp" + "/scratch'", "scratch"),
        (texts.strange_places, "a.json", "https://registry." + "npmjs." + "org/x", "npmjs"),
        (texts.strange_places, "a.yaml", "image: " + "ghcr" + ".io/flotilla/x", "ghcr"),
        (texts.long_pages, "README.md", "x\n" * 151, "151 lines; at most 150"),
        (texts.long_pages, "services/fleet/README.md", "x\n" * 61, "61 lines; at most 60"),
        (texts.many_targets, "Makefile", "".join(f"t{n}:\n\ttrue\n" for n in range(25)), "25 targets"),
    ],
)
def test_a_planted_violation_is_reported(rule: Rule, path: str, text: str, complaint: str) -> None:
    (found,) = rule(path, text)
    assert complaint in found


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (texts.strange_places, "a.py", "GET /api/v1/requests"),
        (texts.strange_places, "a.md", "~/src/flotilla"),
        (texts.long_pages, "README.md", "x\n" * 150),
        (texts.long_pages, "docs/page.md", "x\n" * 1000),
        (texts.many_targets, "Makefile", "UP := 1\n.PHONY: up\nup: ## start\n\tflotilla up\n"),
    ],
)
def test_what_is_right_is_left_alone(rule: Rule, path: str, text: str) -> None:
    assert list(rule(path, text)) == []

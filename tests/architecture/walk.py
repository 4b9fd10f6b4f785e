"""The walk: the path of one request through the code, as docs/architecture/follow-one-request.md tells it, proved.

Each row of the page's table is a step: a function, and how it is reached from an earlier step. `3 →` means that the
source of step 3 names it. Where two halves know each other only through something they share (an address, an event's
type) or are put together elsewhere, that stands between the arrows: `3 → "/api/v1/requests" ← a.router →`. An arrow
points from the source that names to what is named; a method is also named by its class.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.architecture.sources import FunctionNode, Source, function_lines, names_in

MOST_FILES: Final = 8
MOST_LINES: Final = 600
ROW = re.compile(r"\|\s*(\d+)\s*\|\s*`([\w.]+)`\s*\|([^|]*)\|")
TOKEN = re.compile(r'→|←|\d+|`"[^`"]+"`|`[\w.]+`')

Node = FunctionNode | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True, slots=True)
class Step:
    """One row: its number, the function, and the tokens that lead to it from an earlier step."""

    number: int
    function: str
    reached: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A definition in the code: its file, its syntax, and the name by which others speak of it."""

    source: Source
    node: Node
    name: str


def read_steps(page: str) -> list[Step]:
    return [
        Step(int(number), function, tuple(token.strip("`") for token in TOKEN.findall(reached)))
        for number, function, reached in ROW.findall(page)
    ]


def walk_complaints(page: str, sources: Sequence[Source]) -> list[str]:
    """Say where the page's walk and the code part."""
    steps = read_steps(page)
    if not steps:
        return ["the page has no table of steps: rows of | number | `function` | reached | … |"]
    functions = {str(step.number): step.function for step in steps}
    found = [f"step {step.number}: there is no {step.function}" for step in steps if not find(step.function, sources)]
    for position, step in enumerate(steps):
        if step.number != position + 1:
            found.append(f"step {step.number}: expected number {position + 1}")
        if position:
            found += [f"step {step.number}: {line}" for line in _link_complaints(step, functions, sources)]
    return found + list(_size_complaints(steps, sources))


def _link_complaints(step: Step, functions: dict[str, str], sources: Sequence[Source]) -> Iterator[str]:
    nodes, arrows = step.reached[::2], step.reached[1::2]
    if len(nodes) != len(arrows) or not nodes or set(arrows) - {"→", "←"} or not nodes[0].isdigit():
        yield f"cannot read how it is reached: {' '.join(step.reached) or 'nothing'}; expected such as '3 →'"
        return
    if int(nodes[0]) >= step.number:
        yield f"is reached from step {nodes[0]}, which does not come before it"
        return
    chain = [functions.get(nodes[0], nodes[0]), *nodes[1:], step.function]
    for left, arrow, right in zip(chain, arrows, chain[1:], strict=False):
        speaker, spoken = (left, right) if arrow == "→" else (right, left)
        yield from _naming_complaints(speaker, spoken, sources)


def _naming_complaints(speaker: str, spoken: str, sources: Sequence[Source]) -> Iterator[str]:
    place = find(speaker, sources)
    if place is None:
        yield f"there is no {speaker}"
    elif spoken.startswith('"'):
        if not any(spoken.strip('"') in text for text in _strings_in(place.node)):
            yield f"{speaker} does not hold the text {spoken}"
    elif not find(spoken, sources):
        yield f"there is no {spoken}"
    elif not set(_spoken_names(spoken)) & names_in(place.node):
        yield f"{speaker} ({place.source.path}:{place.node.lineno}) does not name {spoken.rpartition('.')[2]}"


def _spoken_names(dotted: str) -> Iterator[str]:
    """Yield the names by which code speaks of a definition: its own and, for a method, its class's."""
    *_, owner, own = dotted.split(".")
    yield own
    if owner[0].isupper():
        yield owner


def _size_complaints(steps: Sequence[Step], sources: Sequence[Source]) -> Iterator[str]:
    """Count files and lines of the functions on the page, each once; composition roots are not on the way."""
    files: dict[str, set[str]] = {}
    lines: dict[str, int] = {}
    for name in dict.fromkeys(name for step in steps for name in (step.function, *step.reached)):
        place = find(name, sources)
        if place and isinstance(place.node, FunctionNode) and place.source.room != "app":
            package = place.source.package
            files.setdefault(package, set()).add(place.source.path)
            lines[package] = lines.get(package, 0) + function_lines(place.node)
    for package, paths in files.items():
        if len(paths) > MOST_FILES:
            yield f"{package}: the walk opens {len(paths)} files, at most {MOST_FILES}: {sorted(paths)}"
        if lines[package] > MOST_LINES:
            yield f"{package}: the walk's functions have {lines[package]} lines, at most {MOST_LINES}"


def find(dotted: str, sources: Sequence[Source]) -> Place | None:
    """Find a definition by its dotted name: a function, class or constant of a module, or a method of a class."""
    modules = {source.module: source for source in sources if not source.test}
    parts = dotted.split(".")
    for length in range(len(parts) - 1, 0, -1):
        source = modules.get(".".join(parts[:length]))
        if source is not None:
            node = _definition(source.tree, parts[length:])
            return None if node is None else Place(source, node, parts[-1])
    return None


def _definition(scope: ast.Module | Node, path: Sequence[str]) -> Node | None:
    for child in getattr(scope, "body", []):
        if path[0] in _defined(child):
            return child if len(path) == 1 else _definition(child, path[1:])
    return None


def _defined(child: ast.stmt) -> set[str]:
    match child:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case _:
            return set()


def _strings_in(node: ast.AST) -> list[str]:
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]

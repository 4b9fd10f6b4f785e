"""The budgets of the house as measurements over syntax trees: sizes that are gated, exceptions that are counted.

`budgets.toml` holds the numbers, `test_budgets.py` compares. Beauty decays without a ratchet, so a counted exception
that is gone must leave the file too.
"""

import ast
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.architecture.growth import growing_attributes, loose_tasks, unbounded_deques, wide_gathers
from tests.architecture.sources import (
    FunctionNode,
    Source,
    classes,
    function_lines,
    functions,
    names_in,
    nodes,
    shipped,
)

BUDGETS = Path(__file__).with_name("budgets.toml")


@dataclass(frozen=True, slots=True)
class Allowed:
    """How often one place may be an exception, and why."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Budgets:
    gates: Mapping[str, float]
    aims: Mapping[str, int]
    counted: Mapping[str, Mapping[str, Allowed]]

    @classmethod
    def read(cls, text: str) -> Self:
        tables = tomllib.loads(text)
        counted = {
            kind: {module: Allowed(**entry) for module, entry in tables.get(kind, {}).items()} for kind in COUNTED
        }
        return cls(tables["gates"], tables["aims"], counted)


def gate_complaints(sources: Sequence[Source], budgets: Budgets) -> list[str]:
    """Name everything that is larger than its gate."""
    gates = budgets.gates
    found = [line for source in sources for line in _module_complaints(source, gates)]
    for package, names in environment_names(sources).items():
        if len(names) > gates["environment_names"]:
            most_names = gates["environment_names"]
            found.append(f"{package} reads {len(names)} environment names; at most {most_names}: {sorted(names)}")
    for package, (doubles, tests) in double_counts(sources).items():
        if doubles > gates["doubles_per_test"] * tests:
            most_doubles = gates["doubles_per_test"]
            found.append(f"{package}: {doubles} Mock and patch in {tests} tests; at most {most_doubles} per test")
    return found


def _module_complaints(source: Source, gates: Mapping[str, float]) -> Iterator[str]:
    if source.lines > (most := _most_lines(source, gates)):
        yield f"{source.path}: {source.lines} lines; at most {most:g}: make it a folder of the same name"
    for node in functions(source.tree):
        where = f"{source.path}:{node.lineno}: {node.name}"
        if (lines := function_lines(node)) > gates["function_lines"]:
            yield f"{where} has {lines} lines; at most {gates['function_lines']}: split it by use case"
        if source.test and _called_by_pytest(node):
            continue
        positional, keyword_only = _parameters(node)
        if positional > gates["positional_parameters"]:
            yield f"{where} takes {positional} positional parameters; at most {gates['positional_parameters']}"
        if keyword_only > gates["keyword_only_parameters"]:
            yield f"{where} takes {keyword_only} keyword-only parameters; at most {gates['keyword_only_parameters']}"
    for owner in classes(source.tree):
        methods = sum(isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) for child in owner.body)
        if methods > gates["class_methods"]:
            yield f"{source.path}:{owner.lineno}: {owner.name} has {methods} methods; at most {gates['class_methods']}"


def _called_by_pytest(node: FunctionNode) -> bool:
    """Tests and fixtures: their parameters are other fixtures, passed by name."""
    return node.name.startswith("test_") or any("fixture" in names_in(mark) for mark in node.decorator_list)


def _most_lines(source: Source, gates: Mapping[str, float]) -> float:
    if source.path.endswith("conftest.py"):
        return gates["conftest_lines"]
    if not source.test and source.module == f"{source.package}.app":
        return gates["composition_root_lines"]
    return gates["module_lines"]


def _parameters(node: FunctionNode) -> tuple[int, int]:
    positional = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    if positional and positional[0] in {"self", "cls"}:
        positional = positional[1:]
    return len(positional), len(node.args.kwonlyargs)


def package_sizes(sources: Sequence[Source]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for source in shipped(sources):
        sizes[source.package] = sizes.get(source.package, 0) + source.lines
    return sizes


def environment_names(sources: Sequence[Source]) -> dict[str, set[str]]:
    """Return what each package's settings read from the environment: fields, with groups and bases unfolded."""
    settings = [source for source in shipped(sources) if source.room == "settings"]
    models = {owner.name: owner for source in settings for owner in classes(source.tree) if not _is_enum(owner)}
    found: dict[str, set[str]] = {}
    for source in settings:
        owners = [owner for owner in classes(source.tree) if not _is_enum(owner)]
        bases = [models[base] for owner in owners for base in map(ast.unparse, owner.bases) if base in models]
        fields = {field for owner in (*owners, *bases) for field in _setting_fields(owner, models.keys())}
        found.setdefault(source.package, set()).update(fields | _environment_constants(source.tree))
    return found


def _is_enum(owner: ast.ClassDef) -> bool:
    return any("Enum" in ast.unparse(base) for base in owner.bases)


def _setting_fields(owner: ast.ClassDef, models: Collection[str]) -> Iterator[str]:
    for child in owner.body:
        if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            annotation = ast.unparse(child.annotation)
            if "ClassVar" not in annotation and annotation not in models:
                yield f"{owner.name}.{child.target.id}"


def _environment_constants(tree: ast.Module) -> set[str]:
    return {
        argument.value
        for call in nodes(tree)
        if isinstance(call, ast.Call | ast.Subscript) and names_in(call) & {"environ", "getenv"}
        for argument in ast.walk(call)
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and argument.value.isupper()
    }


def double_counts(sources: Sequence[Source]) -> dict[str, tuple[int, int]]:
    """Count for each package its stand-ins made by a mocking tool, and its tests."""
    counts: dict[str, tuple[int, int]] = {}
    for source in sources:
        if not source.test:
            continue
        doubles, tests = counts.get(source.package, (0, 0))
        doubles += sum(_is_double(node) for node in nodes(source.tree))
        tests += sum(node.name.startswith("test_") for node in functions(source.tree))
        counts[source.package] = doubles, tests
    return counts


def _is_double(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    return called.rpartition(".")[2] in {"Mock", "MagicMock", "AsyncMock", "patch"} or called in {
        "patch.object",
        "mock.patch.object",
        "monkeypatch.setattr",
    }


def inline_imports(source: Source) -> list[int]:
    """Return the lines of imports inside functions."""
    return sorted(
        {
            node.lineno
            for function in functions(source.tree)
            for node in ast.walk(function)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
    )


def broad_handlers(source: Source) -> list[int]:
    """Return the lines of handlers of everything that do not end by raising again."""
    return [
        node.lineno
        for node in nodes(source.tree)
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not isinstance(node.body[-1], ast.Raise)
    ]


def _is_broad(caught: ast.expr | None) -> bool:
    return caught is None or bool(names_in(caught) & {"Exception", "BaseException"})


def untyped_payloads(source: Source) -> list[int]:
    """Return the lines of mappings from string to anything."""
    return [
        node.lineno
        for node in nodes(source.tree)
        if isinstance(node, ast.Subscript)
        and ast.unparse(node.value).rpartition(".")[2].lower() in {"dict", "mapping", "mutablemapping"}
        and ast.unparse(node.slice).replace("typing.", "").strip("()") == "str, Any"
    ]


COUNTED: Mapping[str, Callable[[Source], list[int]]] = {
    "inline_imports": inline_imports,
    "broad_handlers": broad_handlers,
    "untyped_payloads": untyped_payloads,
    "unbounded_deques": unbounded_deques,
    "loose_tasks": loose_tasks,
    "wide_gathers": wide_gathers,
    "growing_attributes": growing_attributes,
}


def counted_complaints(sources: Sequence[Source], budgets: Budgets) -> list[str]:
    """Compare the exceptions there are with those that are written down, both ways."""
    found = []
    for kind, count in COUNTED.items():
        allowed = budgets.counted[kind]
        there = {source.module: lines for source in shipped(sources) if (lines := count(source))}
        for module in sorted(there.keys() | allowed.keys()):
            lines, most = there.get(module, []), allowed.get(module, Allowed(0, ""))
            if len(lines) > most.count:
                found.append(f"[{kind}] {module} has {len(lines)} (lines {lines}); at most {most.count} allowed")
            elif len(lines) < most.count:
                found.append(f"[{kind}] {module} has only {len(lines)}: lower its {most.count} in budgets.toml")
        found += [f"[{kind}] {module} has no reason in budgets.toml" for module, e in allowed.items() if not e.reason]
    return found


def aims_report(sources: Sequence[Source], budgets: Budgets) -> list[str]:
    """Say how the packages stand to the aims, which nobody has to meet."""
    packages = shipped(sources)
    lengths = sorted(function_lines(node) for source in packages for node in functions(source.tree))
    modules = sorted(source.lines for source in packages)
    aims = budgets.aims
    large = sorted(f"{source.path} ({source.lines})" for source in packages if source.lines > 300)
    sizes = ", ".join(f"{package} {lines}" for package, lines in sorted(package_sizes(packages).items()))
    p50, p90 = _percentile(lengths, 50), _percentile(lengths, 90)
    return [
        f"functions: p50 {p50} (aim {aims['function_p50']}), p90 {p90} (aim {aims['function_p90']}) of {len(lengths)}",
        f"modules: p90 {_percentile(modules, 90)} lines (aim {aims['module_p90']}); over 300: {large or 'none'}",
        f"packages: {sizes}",
    ]


def _percentile(ordered: Sequence[int], percent: int) -> int:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0

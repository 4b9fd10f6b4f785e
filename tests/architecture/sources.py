"""What the rules read: every Python file of the workspace, parsed once, and every text file that is committed.

A rule is a plain function from sources to complaints, so that its test can feed it the real tree and, for good, a
planted violation. Complaints name file, line, what was found and what was expected.
"""

import ast
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file.

    Attributes:
        path: relative to the root of the repository, with slashes.
        package: the workspace package it belongs to, such as `agent_service`; else `tests` or `tools`.
        module: its dotted name below `src`, or its path for a test.
        test: whether it is test code.
        text: what is in it.
        tree: the same, parsed.
    """

    path: str
    package: str
    module: str
    test: bool
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The part of the package it is in: `usecases` of `agent_service.usecases.run_agent`, empty for the top."""
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 else ""

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())


def planted(text: str, module: str = "agent_service.usecases.planted", *, test: bool = False) -> Source:
    """Return a source that is in no file: a violation for a rule to find."""
    package = "tests" if test else module.partition(".")[0]
    path = module if test else f"services/{package}/src/{module.replace('.', '/')}.py"
    return Source(path, package, module, test, text, ast.parse(text))


def member_folders(root: Path = ROOT) -> list[Path]:
    """Return the folders of the workspace's members, as its globs name them."""
    workspace = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]
    found = {folder for glob in workspace["members"] for folder in root.glob(glob)}
    return sorted(folder for folder in found if (folder / "pyproject.toml").is_file())


def packages_of(folder: Path) -> list[str]:
    """Return the Python packages that a member's folder holds."""
    return sorted(child.name for child in (folder / "src").iterdir() if (child / "__init__.py").is_file())


@cache
def workspace_sources() -> tuple[Source, ...]:
    """Return every Python file of the workspace: the packages' own, their tests, and what crosses packages."""
    return tuple(_read(ROOT))


def _read(root: Path) -> Iterator[Source]:
    for folder in member_folders(root):
        for path in sorted((folder / "src").rglob("*.py")):
            relative = path.relative_to(folder / "src").with_suffix("")
            module = ".".join(relative.parts).removesuffix(".__init__")
            yield _source(root, path, relative.parts[0], module, test=False)
        for path in sorted((folder / "tests").rglob("*.py")):
            yield _source(root, path, packages_of(folder)[0], path.relative_to(root).as_posix(), test=True)
    for name in ("tests", "tools"):
        for path in sorted((root / name).rglob("*.py")):
            yield _source(root, path, name, path.relative_to(root).as_posix(), test=name == "tests")


def _source(root: Path, path: Path, package: str, module: str, *, test: bool) -> Source:
    text = path.read_text()
    return Source(path.relative_to(root).as_posix(), package, module, test, text, ast.parse(text, str(path)))


def shipped(sources: Sequence[Source]) -> list[Source]:
    """Leave out test code and tools: what remains is in the packages that people install."""
    return [source for source in sources if not source.test and source.package != "tools"]


@cache
def nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """Return every node of a file's tree, which all rules share: walking the trees takes most of their time."""
    return tuple(ast.walk(tree))


def functions(tree: ast.Module) -> Iterator[FunctionNode]:
    for node in nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    for node in nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield node


def function_lines(node: FunctionNode) -> int:
    """Count from `def` to the last line, without the docstring."""
    first = node.body[0]
    own = (node.end_lineno or node.lineno) - node.lineno + 1
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        own -= (first.end_lineno or first.lineno) - first.lineno + 1
    return own


def names_in(node: ast.AST) -> set[str]:
    """Return every identifier that code names: variables, attributes, arguments, keywords and imported names."""
    found: set[str] = set()
    for part in ast.walk(node):
        match part:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
                found.add(name)
            case ast.keyword(arg=str(name)):
                found.add(name)
            case _:
                pass
    return found


@cache
def committed_files() -> tuple[str, ...]:
    """Return the paths git keeps or would keep: tracked files, and new ones that nothing ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(sorted({path for path in listed.split("\0") if path and (ROOT / path).is_file()}))

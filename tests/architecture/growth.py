"""What may grow until a process dies, as far as syntax shows it: each place is counted, with why it does not.

A queue without an end and a pool without a bound are refused outright (`rules.py`). These four have honest uses, where
the bound is somewhere else: in a caller, in a protocol, in a check beside the append. `budgets.toml` says where.
"""

import ast
from collections.abc import Iterator
from typing import Final

from tests.architecture.sources import Source, classes, nodes

GROWS: Final = frozenset({"append", "appendleft", "add", "extend", "update", "setdefault", "insert"})
SHRINKS: Final = frozenset({"pop", "popleft", "popitem", "clear", "discard", "remove", "difference_update"})
MAKERS: Final = frozenset({"dict", "list", "set", "defaultdict", "OrderedDict", "Counter"})
TASKS_HOME: Final = "shared_clients.loops"


def unbounded_deques(source: Source) -> list[int]:
    """Return the lines of deques that nothing ends."""
    return [
        node.lineno
        for node in nodes(source.tree)
        if isinstance(node, ast.Call)
        and _called(node) == "deque"
        and len(node.args) < 2
        and not any(keyword.arg == "maxlen" for keyword in node.keywords)
    ]


def loose_tasks(source: Source) -> list[int]:
    """Return the lines of tasks that no `Tasks` and no task group owns: nobody counts them."""
    if source.module == TASKS_HOME:
        return []
    return [
        node.lineno
        for node in nodes(source.tree)
        if isinstance(node, ast.Call)
        and (name := ast.unparse(node.func)).rpartition(".")[2] in {"create_task", "ensure_future"}
        and name.partition(".")[0] not in _groups(source.tree)
    ]


def _groups(tree: ast.Module) -> set[str]:
    """Return the names of task groups: they end with their block, and their sizes are those of their loops."""
    return {
        ast.unparse(item.optional_vars)
        for node in nodes(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if item.optional_vars is not None and "TaskGroup" in ast.unparse(item.context_expr)
    }


def wide_gathers(source: Source) -> list[int]:
    """Return the lines where everything in a collection is done at once, however large that is."""
    return [
        node.lineno
        for node in nodes(source.tree)
        if isinstance(node, ast.Call)
        and _called(node) == "gather"
        and any(isinstance(argument, ast.Starred) for argument in node.args)
    ]


def growing_attributes(source: Source) -> list[int]:
    """Return the lines of attributes that begin empty, are added to, and are never made smaller in their class."""
    return sorted(line for owner in classes(source.tree) for line in _growing(owner))


def _growing(owner: ast.ClassDef) -> Iterator[int]:
    made: dict[str, int] = {}
    grown: set[str] = set()
    shrunk: set[str] = set()
    for method in owner.body:
        if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(method):
            if method.name == "__init__":
                made |= _made_empty(node)
            else:
                shrunk |= set(_assigned(node))
            grown |= set(_touched(node, GROWS)) | set(_stored_into(node))
            shrunk |= set(_touched(node, SHRINKS)) | set(_deleted_from(node))
    yield from (line for name, line in made.items() if name in grown - shrunk)


def _made_empty(node: ast.AST) -> dict[str, int]:
    """Return the attributes of self to which a statement assigns something empty, and its line."""
    match node:
        case ast.Assign(targets=[target], value=value) | ast.AnnAssign(target=target, value=ast.expr() as value):
            name = _own(target)
        case _:
            return {}
    empty = (isinstance(value, ast.Dict) and not value.keys) or (isinstance(value, ast.List) and not value.elts)
    called = isinstance(value, ast.Call) and _called(value) in MAKERS
    return {name: node.lineno} if name and (empty or called) else {}


def _assigned(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Assign(targets=targets):
            parts = [part for target in targets for part in ast.walk(target)]
        case ast.AnnAssign(target=target):
            parts = [target]
        case _:
            return
    stored = (part for part in parts if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store))
    yield from filter(None, map(_own, stored))


def _touched(node: ast.AST, methods: frozenset[str]) -> Iterator[str]:
    """Yield the attribute of self of which a method is called, or handed to somebody who will call it."""
    if isinstance(node, ast.Attribute) and node.attr in methods:
        held = node.value
        while isinstance(held, ast.Subscript | ast.Call):
            held = held.value if isinstance(held, ast.Subscript) else held.func
        if name := _own(held):
            yield name


def _stored_into(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and (name := _own(node.value)):
        yield name


def _deleted_from(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Del) and (name := _own(node.value)):
        yield name


def _own(node: ast.AST) -> str:
    """Return the name of an attribute of self."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return ""


def _called(node: ast.Call) -> str:
    called = node.func.value if isinstance(node.func, ast.Subscript) else node.func
    return ast.unparse(called).rpartition(".")[2]

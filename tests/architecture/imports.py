"""The import graph of the packages, built once, and import-linter's contracts checked on copies of it.

`lint-imports` does the same from the command line, with the same contracts from `.importlinter`.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import grimp
from importlinter.api import read_configuration
from importlinter.application import output
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract
from importlinter.contracts.protected import ProtectedContract
from importlinter.domain.contract import Contract

from tests.architecture.sources import ROOT

CONFIG = ROOT / ".importlinter"
KINDS: dict[str, type[Contract]] = {
    "acyclic_siblings": AcyclicSiblingsContract,
    "forbidden": ForbiddenContract,
    "layers": LayersContract,
    "protected": ProtectedContract,
}


@dataclass(frozen=True, slots=True)
class Options:
    """The contracts by their ids, and the options that all of them share."""

    session: Mapping[str, Any]
    contracts: Mapping[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether a graph keeps a contract, and import-linter's report of each breach."""

    kept: bool
    report: str


@cache
def options() -> Options:
    """Return what `.importlinter` says: the options of the whole, and those of each contract."""
    told = read_configuration(str(CONFIG))
    return Options(told["session_options"], {contract["id"]: contract for contract in told["contracts_options"]})


@cache
def real_graph() -> grimp.ImportGraph:
    """Return the graph of the packages as they are; only a copy of it may be changed."""
    session = options().session
    return grimp.build_graph(
        *session["root_packages"],
        include_external_packages=session["include_external_packages"] == "True",
        exclude_type_checking_imports=session["exclude_type_checking_imports"] == "True",
        cache_dir=None,
    )


def planted_graph(module: str, imported: str) -> grimp.ImportGraph:
    """Return a copy of the graph with one more import, or with one more module where `imported` is empty."""
    graph = deepcopy(real_graph())
    graph.add_module(module)
    if imported and imported not in graph.modules:
        outside = imported.partition(".")[0] not in options().session["root_packages"]
        assert outside, f"nothing is called {imported}: plant an import of a module that exists"
        graph.add_module(imported, is_squashed=True)
    if imported:
        line = f"import {imported}"
        graph.add_import(importer=module, imported=imported, line_number=1, line_contents=line, is_lazy=False)
    return graph


def check(name: str, graph: grimp.ImportGraph) -> Checked:
    """Check one contract on a graph, which stays as it is."""
    chosen = options().contracts[name]
    contract = KINDS[chosen["type"]](chosen["name"], dict(options().session), chosen)
    result = contract.check(deepcopy(graph), verbose=False)
    if result.kept:
        return Checked(kept=True, report="")
    with output.console.capture() as captured:
        contract.render_broken_contract(result)
    return Checked(kept=False, report=captured.get())

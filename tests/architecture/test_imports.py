import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.imports import CONFIG, check, options, planted_graph, real_graph
from tests.architecture.sources import member_folders, packages_of

LINT = Path(sys.executable).with_name("lint-imports")

PLANTS = [
    ("workspace", "shared_models.planted", "shared_clients.errors"),
    ("workspace", "request_manager.domain", "agent_service.domain"),
    ("workspace", "agent_service.domain", "fleet"),
    ("evals", "request_manager.domain", "evals"),
    ("rooms", "request_manager.domain", "request_manager.queries"),
    ("rooms", "request_manager.queries", "request_manager.usecases"),
    ("rooms", "request_manager.events", "request_manager.api"),
    ("rooms", "request_manager.notifications", ""),
    ("gateway-rooms", "api_gateway.caching", ""),
    ("fleet-rooms", "fleet.scheduling", ""),
    ("clients-rooms", "shared_clients.errors", "shared_clients.metrics"),
    ("workspace", "shared_clients.postgres", "durable_work.outbox"),
    ("clients-rooms", "shared_clients.postgres", "shared_clients.bus"),
    ("workspace", "durable_work.inbox", "service_process.web"),
    ("workspace", "fleet.app", "command_line.commands"),
    ("local", "command_line.ask", "fleet.settings"),
    ("command-line-rooms", "command_line.remote", "command_line.asking"),
    ("backends-rooms", "local_backends.server", "local_backends.kafka"),
    ("process-rooms", "service_process.settings", "service_process.dead_letters"),
    ("frames-rooms", "run_frames.log", "run_frames.reader"),
    ("clients-rooms", "shared_clients.strings", ""),
    ("work-rooms", "durable_work.jobs", "durable_work.inbox"),
    ("work-rooms", "durable_work.queueing", ""),
    ("work-rooms", "durable_work.inbox", "durable_work.dead_letters"),
    ("bus-rooms", "shared_clients.bus.port", "shared_clients.bus.kafka"),
    ("cycles", "shared_models.ids", "shared_models.envelope"),
    ("core", "request_manager.usecases", "fastapi"),
    ("core", "request_manager.domain", "service_process.web"),
    ("core", "agent_service.usecases.planted", "openai"),
    ("sql", "request_manager.domain", "sqlalchemy"),
    ("language", "shared_models.ids", "httpx"),
    ("providers", "fleet.app", "pydantic_ai"),
]
"""Contract, module, and what it imports: nothing, where the module itself is the violation."""


@pytest.mark.parametrize("contract", options().contracts)
def test_every_contract_is_kept(contract: str) -> None:
    checked = check(contract, real_graph())
    assert checked.kept, checked.report


@pytest.mark.parametrize(("contract", "module", "imported"), PLANTS)
def test_a_planted_import_breaks_its_contract(contract: str, module: str, imported: str) -> None:
    checked = check(contract, planted_graph(module, imported))
    assert not checked.kept
    assert module.rpartition(".")[2] in checked.report


def test_every_contract_is_shown_failing() -> None:
    assert set(options().contracts) == {contract for contract, *_ in PLANTS}


def test_a_plant_leaves_the_real_graph_alone() -> None:
    planted_graph("shared_models.planted", "shared_clients.errors")
    assert "shared_models.planted" not in real_graph().modules


def test_an_import_that_is_written_into_a_file_is_found_by_the_command(tmp_path: Path) -> None:
    """Even where only a function imports."""
    for folder in member_folders():
        for path in (folder / "src").rglob("*.py"):
            target = tmp_path / path.relative_to(folder / "src")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    with (tmp_path / "request_manager" / "domain.py").open("a") as file:
        file.write("\ndef planted() -> None:\n    from request_manager import queries\n")
    linted = subprocess.run(
        [str(LINT), "--no-logo", "--no-cache", "--config", str(CONFIG), "--contract", "rooms"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 1, linted.stdout + linted.stderr
    assert f"{options().contracts['rooms']['name']} BROKEN" in linted.stdout
    assert "request_manager.domain" in linted.stdout


def test_every_member_of_the_workspace_is_a_root_package() -> None:
    roots = options().session["root_packages"]
    assert sorted(roots) == sorted(name for folder in member_folders() for name in packages_of(folder))


def test_a_member_that_nobody_listed_is_found(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["services/*"]\n')
    package = tmp_path / "services" / "new-door" / "src" / "new_door"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "services" / "new-door" / "pyproject.toml").touch()
    assert [packages_of(folder) for folder in member_folders(tmp_path)] == [["new_door"]]

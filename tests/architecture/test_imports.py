import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, member_folders, packages_of

CONFIG = ROOT / ".importlinter"
LINT = Path(sys.executable).with_name("lint-imports")

PLANTS = [
    ("workspace", "shared_models.planted", "import shared_clients.errors"),
    ("workspace", "request_manager.domain", "import agent_service.domain"),
    ("workspace", "agent_service.domain", "import fleet"),
    ("evals", "request_manager.domain", "import evals"),
    ("rooms", "request_manager.domain", "import request_manager.queries"),
    ("rooms", "request_manager.queries", "import request_manager.usecases"),
    ("rooms", "request_manager.events", "import request_manager.api"),
    ("rooms", "request_manager.notifications", ""),
    ("gateway-rooms", "api_gateway.caching", ""),
    ("fleet-rooms", "fleet.scheduling", ""),
    ("clients-rooms", "shared_clients.errors", "import shared_clients.metrics"),
    ("workspace", "shared_clients.postgres", "import durable_work.outbox"),
    ("clients-rooms", "shared_clients.postgres", "import shared_clients.bus"),
    ("workspace", "durable_work.inbox", "import service_process.web"),
    ("workspace", "fleet.app", "import command_line.commands"),
    ("local", "command_line.ask", "import fleet.settings"),
    ("command-line-rooms", "command_line.remote", "import command_line.asking"),
    ("backends-rooms", "local_backends.server", "import local_backends.kafka"),
    ("process-rooms", "service_process.settings", "import service_process.dead_letters"),
    ("frames-rooms", "run_frames.log", "import run_frames.reader"),
    ("clients-rooms", "shared_clients.strings", ""),
    ("work-rooms", "durable_work.leases", "import durable_work.inbox"),
    ("work-rooms", "durable_work.queueing", ""),
    ("work-rooms", "durable_work.inbox", "import durable_work.dead_letters"),
    ("bus-rooms", "shared_clients.bus.port", "import shared_clients.bus.kafka"),
    ("cycles", "shared_models.ids", "import shared_models.envelope"),
    ("core", "request_manager.usecases", "import fastapi"),
    ("core", "request_manager.domain", "import service_process.web"),
    ("core", "agent_service.usecases.planted", "import openai"),
    ("sql", "request_manager.domain", "import sqlalchemy"),
    ("language", "shared_models.ids", "import httpx"),
    ("providers", "fleet.app", "import pydantic_ai"),
]
"""Contract, module, and what is written at its end: nothing, where the module itself is the violation."""


def lint(sources: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter with our contracts on the packages in `sources`, which go before the installed ones."""
    chosen = [option for contract in contracts for option in ("--contract", contract)]
    return subprocess.run(
        [str(LINT), "--no-logo", "--no-cache", "--config", str(CONFIG), *chosen],
        cwd=sources,
        env={**os.environ, "PYTHONPATH": str(sources), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The packages of the workspace, copied side by side, without what is not Python."""
    for folder in member_folders():
        for path in (folder / "src").rglob("*.py"):
            target = tmp_path / path.relative_to(folder / "src")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return tmp_path


def plant(sources: Path, module: str, code: str) -> None:
    """Write code at the end of a module, which is made where it is missing."""
    folder = sources.joinpath(*module.split("."))
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    file.write_text(f"{file.read_text() if file.exists() else ''}\n{code}\n")


def test_every_contract_is_kept(copied: Path) -> None:
    result = lint(copied)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("contract", "module", "code"), PLANTS)
def test_a_planted_import_breaks_its_contract(copied: Path, contract: str, module: str, code: str) -> None:
    plant(copied, module, code)
    result = lint(copied, contract)
    assert result.returncode == 1, result.stdout + result.stderr
    config = configparser.ConfigParser()
    config.read(CONFIG)
    assert f"{config[f'importlinter:contract:{contract}']['name']} BROKEN" in result.stdout
    assert module.rpartition(".")[2] in result.stdout


def test_every_contract_is_shown_failing() -> None:
    config = configparser.ConfigParser()
    config.read(CONFIG)
    contracts = {section.rpartition(":")[2] for section in config.sections() if ":contract:" in section}
    assert contracts == {contract for contract, *_ in PLANTS}


def test_every_member_of_the_workspace_is_a_root_package() -> None:
    config = configparser.ConfigParser()
    config.read(CONFIG)
    roots = config["importlinter"]["root_packages"].split()
    assert sorted(roots) == sorted(name for folder in member_folders() for name in packages_of(folder))


def test_a_member_that_nobody_listed_is_found(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["services/*"]\n')
    package = tmp_path / "services" / "new-door" / "src" / "new_door"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "services" / "new-door" / "pyproject.toml").touch()
    assert [packages_of(folder) for folder in member_folders(tmp_path)] == [["new_door"]]

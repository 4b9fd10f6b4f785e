"""Read the agents and model scripts of `agent-configs/`, and check them against each other before the service starts.

Errors are for people in an editor: they name the file, the line, the column and the expected value.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent_service.adapters.scripts import ModelScript
from agent_service.domain.agents import AgentCatalog
from shared_models.agents import Agent, ConfigError, Mistake, ModelRef, config_error, parse_agent, parse_document

_AGENT_FILE = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)-v(?P<version>[1-9][0-9]{0,5})\.yaml")

type _Field = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Configuration:
    """The content of `agent-configs/`."""

    agents: AgentCatalog
    scripts: Mapping[str, ModelScript]


def load_configuration(folder: Path, *, tools: Collection[str], default_agent: str = "assistant") -> Configuration:
    """Read and check a folder of `agents/*.yaml` and `scripts/*.yaml`.

    Args:
        folder: `agent-configs/`.
        tools: names of the built-in tools.
        default_agent: the agent for requests that name none.

    Raises:
        ConfigError: a file cannot be used; the error lists every mistake in the first such file.
        UnknownAgent: no file defines the default agent.
    """
    if not (folder / "agents").is_dir():
        raise ConfigError(str(folder), (Mistake(1, 1, "", "expected a folder with agents/*.yaml and scripts/*.yaml"),))
    scripts = {path.stem: _read_script(path) for path in sorted((folder / "scripts").glob("*.yaml"))}
    versions = [_read_agent(path, scripts, tools) for path in sorted((folder / "agents").glob("*.yaml"))]
    return Configuration(AgentCatalog(versions, default_agent), scripts)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            str(path), (Mistake(1, 1, "", f"byte {error.start} is not UTF-8; save the file as UTF-8"),)
        ) from error


def _read_script(path: Path) -> ModelScript:
    text = _text(path)
    script = parse_document(str(path), text, ModelScript)
    if script.metadata.name != path.stem:
        wrong = f"expected {path.stem}, as the file is called"
        raise config_error(str(path), text, {("metadata", "name"): wrong})
    return script


def _read_agent(path: Path, scripts: Collection[str], tools: Collection[str]) -> tuple[int, Agent]:
    text = _text(path)
    agent = parse_agent(str(path), text)
    match = _AGENT_FILE.fullmatch(path.name)
    faults: dict[_Field, str] = {}
    if match is None:
        faults["metadata", "name"] = f"expected a file called {agent.metadata.name}-v<N>.yaml, not {path.name}"
    elif match["name"] != agent.metadata.name:
        faults["metadata", "name"] = f"expected {match['name']}, as the file is called"
    for index, tool in enumerate(agent.spec.tools):
        if tool not in tools:
            faults["spec", "tools", index] = f"there is no tool {tool}; expected one of {', '.join(sorted(tools))}"
    models: dict[_Field, ModelRef] = {("spec", "model", "name"): agent.spec.model}
    models.update({("spec", "fallbacks", i, "name"): ref for i, ref in enumerate(agent.spec.fallbacks)})
    for where, ref in models.items():
        if ref.provider == "scripted" and ref.name not in scripts:
            known = ", ".join(sorted(scripts)) or "none"
            faults[where] = f"there is no scripts/{ref.name}.yaml; the scripts are: {known}"
    if faults or match is None:
        raise config_error(str(path), text, faults)
    return int(match["version"]), agent

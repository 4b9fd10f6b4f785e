"""Read the agents and model scripts of `agent-configs/`, and check them against each other before the service starts.

Errors are for people in an editor: they name the file, the line, the column and the expected value.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent_service.adapters.scripts import ModelScript
from agent_service.domain.agents import AgentCatalog, AgentFile, models_of, with_default_model
from agent_service.errors import UnknownAgent
from shared_models.agents import Agent, ConfigError, Mistake, ModelRef, config_error, parse_agent, parse_document

_AGENT_FILE = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)-v(?P<version>[1-9][0-9]{0,5})\.ya?ml")
_SUFFIXES: Final = frozenset({".yaml", ".yml"})
_NOTES: Final = frozenset({".md", ".txt"})
"""Suffixes of files for people, which lie beside the others and are not named as ignored."""
KEYS: Final = {"openai": "set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that needs no key"}
"""The remedy where a provider has no key."""

type _Field = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Configuration:
    """The content of `agent-configs/`.

    Attributes:
        folder: `agent-configs/`.
        agents: every version of every agent.
        scripts: the model scripts, by name.
        ignored: paths that are neither an agent nor a script.
    """

    folder: Path
    agents: AgentCatalog
    scripts: Mapping[str, ModelScript]
    ignored: tuple[Path, ...] = ()

    def with_models(self, chosen: ModelRef | None) -> "Configuration":
        """Return the configuration with a model in place of each `model: default`.

        Args:
            chosen: the model of the provider whose key is there; without one, an agent gets the script of its name, or
                else the default agent's.

        Raises:
            ConfigError: there is neither a provider nor such a script.
        """
        files = [replace(file, agent=self._resolved(file, chosen)) for file in self.agents.files]
        return replace(self, agents=AgentCatalog(files, self.agents.default))

    def _resolved(self, file: AgentFile, chosen: ModelRef | None) -> Agent:
        if not file.uses_default:
            return file.agent
        names = [name for name in (file.name, self.agents.default) if name in self.scripts]
        if chosen is None and not names:
            missing = f"there is no key of a provider, and no scripts/{file.name}.yaml"
            raise _at(Path(file.path), f"model: {missing}: {KEYS['openai']}, or write that script")
        return with_default_model(file.agent, chosen or ModelRef(provider="scripted", name=names[0]))


def load_configuration(
    folder: Path,
    *,
    tools: Collection[str],
    default_agent: str = "assistant",
    providers: Collection[str] = (),
) -> Configuration:
    """Read and check a folder of `agents/*.yaml` and `scripts/*.yaml`; `.yml` is read too.

    Args:
        folder: `agent-configs/`.
        tools: names of the built-in tools.
        default_agent: the agent for requests that name none.
        providers: the model providers for which there is a key or an address.

    Raises:
        ConfigError: a file cannot be used, or one is missing; the error lists every mistake in the first such file.
    """
    if not (folder / "agents").is_dir():
        expected = "expected a folder with agents/*.yaml and scripts/*.yaml"
        raise _at(folder, f"{expected}; make it, or set FLOTILLA_AGENT_CONFIGS to the folder that has them")
    script_paths, agent_paths = _documents(folder / "scripts"), _documents(folder / "agents")
    scripts = {path.stem: _read_script(path) for path in script_paths}
    files = [_read_agent(path, scripts, tools, providers) for path in agent_paths]
    _refuse_doubles(script_paths, [path.stem for path in script_paths])
    _refuse_doubles(agent_paths, [(file.name, file.version) for file in files])
    try:
        agents = AgentCatalog(files, default_agent)
    except UnknownAgent as error:
        known = ", ".join(sorted({file.name for file in files}))
        remedy = f"add {default_agent}-v1.yaml"
        remedy += f", or set FLOTILLA_DEFAULT_AGENT to one of: {known}" if known else ""
        missing = f"no file defines the agent {default_agent}, which answers where a request names none"
        raise _at(folder / "agents", f"{missing}; {remedy}") from error
    return Configuration(folder, agents, scripts, tuple(_ignored(folder)))


def _documents(folder: Path) -> list[Path]:
    """Return what looks like a YAML file, in the order of the names."""
    return sorted(path for path in folder.glob("*") if path.suffix in _SUFFIXES and not path.name.startswith("."))


def _ignored(folder: Path) -> Iterable[Path]:
    """Yield the paths that nothing reads and that somebody may think are read."""
    for part in ("agents", "scripts"):
        for path in sorted((folder / part).glob("*")):
            if path.suffix not in _SUFFIXES | _NOTES and not path.name.startswith("."):
                yield path


def _at(path: Path, message: str) -> ConfigError:
    """Return the error of a whole file or folder."""
    return ConfigError(str(path), (Mistake(0, 0, "", message),))


def _text(path: Path) -> str:
    if path.is_dir():
        raise _at(path, "this is a folder, and a file was expected; move its files up, or give it a name without .yaml")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            str(path), (Mistake(1, 1, "", f"byte {error.start} is not UTF-8; save the file as UTF-8"),)
        ) from error
    except OSError as error:
        raise _at(path, f"it cannot be read: {error.strerror}; make it readable, or remove it") from error


def _refuse_doubles(paths: list[Path], names: Sequence[object]) -> None:
    """Refuse two files that define the same, as `x.yaml` and `x.yml` do."""
    for index, name in enumerate(names):
        first = names.index(name)
        if first != index:
            raise _at(paths[index], f"{paths[first].name} defines the same; remove one of the two")


def _read_script(path: Path) -> ModelScript:
    text = _text(path)
    script = parse_document(str(path), text, ModelScript)
    if script.metadata.name != path.stem:
        wrong = f"expected {path.stem}, as the file is called"
        raise config_error(str(path), text, {("metadata", "name"): wrong})
    return script


def _read_agent(path: Path, scripts: Collection[str], tools: Collection[str], providers: Collection[str]) -> AgentFile:
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
    faults |= _wrong_models(agent, scripts, providers)
    if faults or match is None:
        raise config_error(str(path), text, faults)
    return AgentFile(str(path), int(match["version"]), agent.revision, agent)


def _wrong_models(agent: Agent, scripts: Collection[str], providers: Collection[str]) -> dict[_Field, str]:
    """Return the models that cannot answer: a script that is not there, a provider without a key."""
    faults: dict[_Field, str] = {}
    paths: list[_Field] = [("spec", "model"), *(("spec", "fallbacks", i) for i in range(len(agent.spec.fallbacks)))]
    for path, ref in zip(paths, models_of(agent), strict=True):
        if ref.provider == "scripted" and ref.name not in scripts:
            known = ", ".join(sorted(scripts)) or "none"
            faults[(*path, "name")] = f"there is no scripts/{ref.name}.yaml; the scripts are: {known}"
        if ref.provider in KEYS and ref.provider not in providers:
            faults[(*path, "provider")] = f"there is no key for {ref.provider}: {KEYS[ref.provider]}"
    return faults

import pytest

from agent_service.domain.agents import AgentCatalog, AgentFile, with_default_model
from agent_service.errors import UnknownAgent
from shared_models.agents import Agent, AgentSpec, Metadata, ModelRef


def agent(name: str, model: str) -> Agent:
    spec = AgentSpec(model=ModelRef(provider="scripted", name=model))
    return Agent(api_version="flotilla/v1", kind="Agent", metadata=Metadata(name=name), spec=spec)


def written(version: int, agent: Agent) -> AgentFile:
    return AgentFile(f"agents/{agent.metadata.name}-v{version}.yaml", version, agent.revision, agent)


OLD, NEW, OTHER = agent("helper", "one"), agent("helper", "two"), agent("other", "one")
CATALOG = AgentCatalog([written(10, NEW), written(9, OLD), written(1, OTHER)], default="other")


def test_the_highest_version_of_an_agent_answers() -> None:
    assert CATALOG.find("helper") is NEW


def test_a_request_that_names_no_agent_gets_the_default_one() -> None:
    assert CATALOG.find(None) is OTHER


def test_older_revision_is_found_by_its_digest() -> None:
    assert CATALOG.revision(OLD.revision) is OLD
    assert list(CATALOG) == [OLD, NEW, OTHER]
    assert [(file.name, file.version) for file in CATALOG.current] == [("helper", 10), ("other", 1)]


def test_undefined_agent_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(UnknownAgent, match="'nobody'; known are helper, other"):
        CATALOG.find("nobody")
    with pytest.raises(UnknownAgent, match="no file has revision"):
        CATALOG.revision("0" * 16)


def test_a_default_that_is_not_defined_is_refused_at_start() -> None:
    with pytest.raises(UnknownAgent, match="'assistant'"):
        AgentCatalog([written(1, OTHER)], default="assistant")


def test_a_chosen_model_replaces_the_default_one_and_leaves_the_parameters() -> None:
    default = ModelRef(provider="default", name="default", temperature=0.5)
    spec = AgentSpec(model=default, fallbacks=(ModelRef(provider="scripted", name="spare"), default))
    agent = Agent(api_version="flotilla/v1", kind="Agent", metadata=Metadata(name="a"), spec=spec)
    chosen = ModelRef(provider="openai", name="big", temperature=1)
    resolved = with_default_model(agent, chosen)
    assert resolved.spec.model == ModelRef(provider="openai", name="big", temperature=0.5)
    assert resolved.spec.fallbacks == (spec.fallbacks[0], resolved.spec.model)
    assert resolved.revision != agent.revision

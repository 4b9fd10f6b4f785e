import pytest

from agent_service.domain.agents import AgentCatalog
from agent_service.errors import UnknownAgent
from shared_models.agents import Agent, AgentSpec, Metadata, ModelRef


def agent(name: str, model: str) -> Agent:
    spec = AgentSpec(model=ModelRef(provider="scripted", name=model))
    return Agent(api_version="flotilla/v1", kind="Agent", metadata=Metadata(name=name), spec=spec)


OLD, NEW, OTHER = agent("helper", "one"), agent("helper", "two"), agent("other", "one")
CATALOG = AgentCatalog([(10, NEW), (9, OLD), (1, OTHER)], default="other")


def test_the_highest_version_of_an_agent_answers() -> None:
    assert CATALOG.find("helper") is NEW


def test_a_request_that_names_no_agent_gets_the_default_one() -> None:
    assert CATALOG.find(None) is OTHER


def test_older_revision_is_found_by_its_digest() -> None:
    assert CATALOG.revision(OLD.revision) is OLD
    assert list(CATALOG) == [OTHER, OLD, NEW]


def test_undefined_agent_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(UnknownAgent, match="'nobody'; known are helper, other"):
        CATALOG.find("nobody")
    with pytest.raises(UnknownAgent, match="no file has revision"):
        CATALOG.revision("0" * 16)


def test_a_default_that_is_not_defined_is_refused_at_start() -> None:
    with pytest.raises(UnknownAgent, match="'assistant'"):
        AgentCatalog([(1, OTHER)], default="assistant")

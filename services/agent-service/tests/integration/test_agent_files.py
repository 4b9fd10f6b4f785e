"""A file that was edited after runs had used its version is named; one that no run has used is not."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from agent_service.domain.agents import AgentFile
from agent_service.usecases.note_agent_files import note_agent_files
from shared_clients.postgres import Database, sql
from shared_models.agents import Agent, AgentSpec, Metadata, ModelRef, Prompts
from shared_models.ids import new_id

pytestmark = pytest.mark.asyncio(loop_scope="module")
USE = sql("""
    INSERT INTO runs (tenant, execution_id, session_id, turn, status, content, principal, cause, expires_at, revision)
    VALUES ('t', :id, :id, 1, 'completed', '', '{}', '', now(), :revision)
""")


def written(name: str, text: str, version: int = 1) -> AgentFile:
    spec = AgentSpec(model=ModelRef(provider="scripted", name="test"), prompts=Prompts(system=text))
    agent = Agent(api_version="flotilla/v1", kind="Agent", metadata=Metadata(name=name), spec=spec)
    return AgentFile(f"agents/{name}-v{version}.yaml", version, agent.revision, agent)


async def use(database: Database, file: AgentFile) -> None:
    async with database.autocommit() as tx:
        await tx.run(USE, id=new_id(), revision=file.agent.revision)


async def test_used_file_that_was_edited_is_named_until_it_is_as_before(opened: Database) -> None:
    before, after = written("edited", "one"), written("edited", "two")
    assert await note_agent_files(opened, [before]) == ()
    await use(opened, before)
    for _ in range(2):
        with capture_logs() as logs:
            assert await note_agent_files(opened, [after]) == (after,)
        applied, line = logs
        assert (applied["event"], applied["model"], applied["log_level"]) == ("agent_applied", "test", "info")
        assert (line["event"], line["file"]) == ("agent_file_edited", "agents/edited-v1.yaml")
        assert "name it edited-v2.yaml, and restore version 1" in line["then"]
    assert await note_agent_files(opened, [before, replace(after, version=2)]) == ()


async def test_unused_file_may_be_edited(opened: Database) -> None:
    await note_agent_files(opened, [written("draft", "one")])
    assert await note_agent_files(opened, [written("draft", "two")]) == ()


async def test_another_model_for_the_default_one_is_no_edit(opened: Database) -> None:
    file = written("chosen", "one")
    await note_agent_files(opened, [file])
    await use(opened, file)
    other = replace(file, agent=written("chosen", "another revision").agent)
    assert await note_agent_files(opened, [other]) == ()

"""Note the agent files that are applied, and find those that were edited after runs had used them.

A version of an agent is one content: two answers of `assistant`, version 1, come from the same file. An edit in place
breaks that, so it is named at every start until the file is as before, or has another version.
"""

from collections.abc import Sequence

import structlog

from agent_service.domain.agents import AgentFile, edit_remedy
from agent_service.queries import agent_files
from shared_clients.postgres import Database

log = structlog.get_logger()


async def note_agent_files(database: Database, files: Sequence[AgentFile]) -> tuple[AgentFile, ...]:
    """Store which content each version of an agent has, and return the files that were edited after use."""
    edited: list[AgentFile] = []
    async with database.transaction() as tx:
        for file in files:
            await agent_files.insert_agent_file(tx, file)
            if await agent_files.was_edited(tx, file):
                edited.append(file)
    for file in files:
        model = file.agent.spec.model
        log.info(
            "agent_applied", file=file.path, revision=file.agent.revision, provider=model.provider, model=model.name
        )
    for file in edited:
        log.warning("agent_file_edited", file=file.path, then=edit_remedy(file.name, file.version))
    return tuple(edited)

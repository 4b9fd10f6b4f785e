"""The statements of agent files: which content each version of an agent has had."""

from agent_service.domain.agents import AgentFile
from shared_clients.postgres import Tx, sql

INSERT_AGENT_FILE = sql("""
    INSERT INTO agent_files (agent, version, digest, revision) VALUES (:agent, :version, :digest, :revision)
    ON CONFLICT DO NOTHING
""")
WAS_EDITED = sql("""
    SELECT f.digest FROM agent_files f
    WHERE f.agent = :agent AND f.version = :version AND f.digest <> :digest
      AND EXISTS (SELECT FROM runs r WHERE r.revision = f.revision)
    LIMIT 1
""")
"""Reads all runs where a file was edited that no run has used; that is rare, and asked once at a start."""


async def insert_agent_file(tx: Tx, file: AgentFile) -> None:
    """Store that a version of an agent has this content; a known content stays as it is."""
    await tx.run(
        INSERT_AGENT_FILE, agent=file.name, version=file.version, digest=file.digest, revision=file.agent.revision
    )


async def was_edited(tx: Tx, file: AgentFile) -> bool:
    """Tell whether a run has used another content of this version."""
    return await tx.row(WAS_EDITED, agent=file.name, version=file.version, digest=file.digest) is not None

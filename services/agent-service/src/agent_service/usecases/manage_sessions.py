"""Open and delete sessions, each with its entry in the audit log."""

from uuid import UUID

from agent_service.domain.sessions import NewSession, SessionView
from agent_service.queries import sessions as queries
from durable_work.audit import Actor, Entry, record
from shared_clients.postgres import Database
from shared_models.audit import Action
from shared_models.ids import new_id
from shared_models.requests import Principal


async def open_session(database: Database, principal: Principal, new: NewSession) -> SessionView:
    """Open an empty session that belongs to the principal."""
    session_id = new_id()
    async with database.transaction() as tx:
        session = await queries.create_session(
            tx, principal.tenant, principal.person, session_id, title=new.title or "", agent=new.agent
        )
        await record(tx, Entry(principal.tenant, Actor.of(principal), Action.SESSION_CREATED, str(session_id)))
    return session


async def delete_session(database: Database, principal: Principal, session_id: UUID, *, vouched: bool) -> bool:
    """Hide a session for good, so that later requests in it are refused; return False if the principal has none.

    Args:
        database: agent-service's schema.
        principal: the person who deletes.
        session_id: the session.
        vouched: the gateway knows that the session is the principal's, although its first request may not have arrived.
    """
    async with database.transaction() as tx:
        owned = (tx, principal.tenant, principal.person, session_id)
        deleted = await queries.delete_session(*owned) or (vouched and await queries.insert_deleted(*owned))
        if not deleted:
            return False
        await record(tx, Entry(principal.tenant, Actor.of(principal), Action.SESSION_DELETED, str(session_id)))
    return True

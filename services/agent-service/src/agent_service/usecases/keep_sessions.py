"""Open and delete sessions, each with its entry in the audit log."""

from uuid import UUID

from agent_service.domain.sessions import NewSession, SessionView
from agent_service.queries import sessions as queries
from durable_work.audit import Actor, Entry, record
from shared_clients.postgres import Database
from shared_models.audit import Action
from shared_models.ids import new_id
from shared_models.requests import Principal


async def open_session(database: Database, principal: Principal, wanted: NewSession) -> SessionView:
    """Open an empty session of the principal's."""
    session_id = new_id()
    async with database.transaction() as tx:
        session = await queries.create_session(
            tx, principal.tenant, _owner(principal), session_id, title=wanted.title or "", agent=wanted.agent
        )
        await record(tx, Entry(principal.tenant, Actor.of(principal), Action.SESSION_CREATED, str(session_id)))
    return session


async def delete_session(database: Database, principal: Principal, session_id: UUID) -> bool:
    """Hide a session for good and have later requests in it refused; False where the principal has none such."""
    async with database.transaction() as tx:
        if not await queries.delete_session(tx, principal.tenant, _owner(principal), session_id):
            return False
        await record(tx, Entry(principal.tenant, Actor.of(principal), Action.SESSION_DELETED, str(session_id)))
    return True


def _owner(principal: Principal) -> str:
    return f"{principal.issuer}|{principal.subject}"

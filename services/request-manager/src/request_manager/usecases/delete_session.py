"""Delete a session's requests: nobody reads them from now on, and those that have not ended are cancelled.

agent-service keeps the session's messages, and the gateway has both services delete the session. Here it is deleted
first, so that a failure in between leaves a session that is listed and has no answers to read.
"""

from uuid import UUID

from durable_work.outbox import Outbox
from request_manager.queries import requests
from request_manager.usecases.cancel_request import cancel_request
from shared_clients.postgres import Database
from shared_models.requests import Principal


async def delete_session(database: Database, outbox: Outbox, caller: Principal, session_id: UUID) -> bool:
    """Hide the session's requests and cancel the pending ones; return False where the caller has no such session.

    A session that is deleted already counts as deleted, because the caller may have to repeat the call.
    """
    if not await requests.delete_session(database, caller, session_id):
        return False
    for request_id in await requests.list_pending(database, caller, session_id):
        await cancel_request(database, outbox, caller, request_id)
    return True

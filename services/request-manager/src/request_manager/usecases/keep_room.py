"""Take on no more than can be dealt with: a queue that only grows answers everybody too late, and then nobody.

What waits is counted once a second, not for each request; all replicas see the same, because it is the database's.
"""

import random
from collections import Counter
from typing import Final

from durable_work.outbox import Outbox
from request_manager import queries
from shared_clients import metrics
from shared_clients.postgres import Database
from shared_models.problems import Problem, Problems

COUNT_SECONDS: Final = 1.0


class Room:
    """What request-manager may still take on.

    Args:
        database: where what was accepted is counted.
        outbox: events that wait to be passed on.
        pending: requests that may have been accepted and not have ended, of all tenants.
        tenant_pending: those of one tenant.
    """

    def __init__(self, database: Database, outbox: Outbox, *, pending: int, tenant_pending: int) -> None:
        self._database = database
        self._outbox = outbox
        self._most = pending
        self._most_of_tenant = tenant_pending
        self._pending = Counter[str]()

    async def count(self) -> None:
        """See how many requests have not ended; call it every second."""
        self._pending = Counter(await queries.pending_by_tenant(self._database))

    def check(self, tenant: str) -> None:
        """Let one more of a tenant's requests in.

        Raises:
            Problem: RATE_LIMITED for what is over the tenant's part, OVERLOADED for what is over the platform's.
        """
        if self._outbox.full:
            raise _refusal(Problems.OVERLOADED, "outbox", "Too many accepted requests wait to be passed on.")
        if self._pending[tenant] >= self._most_of_tenant:
            detail = f"This tenant has {self._most_of_tenant} requests that have not ended."
            raise _refusal(Problems.RATE_LIMITED, "tenant_pending", detail)
        if self._pending.total() >= self._most:
            raise _refusal(Problems.OVERLOADED, "pending", "As many requests wait as the platform takes on.")


def _refusal(kind: Problems, limit: str, why: str) -> Problem:
    metrics.ADMISSION_REFUSED.labels(limit).inc()
    again = str(random.randint(5, 10))  # noqa: S311 - jitter, no secret
    detail = f"{why} Nothing was done; send it again after Retry-After."
    return Problem(kind, detail, headers={"Retry-After": again})

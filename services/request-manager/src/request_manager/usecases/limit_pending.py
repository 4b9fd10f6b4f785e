"""Refuse requests while too many are pending: a queue that only grows makes every answer late.

Pending requests are counted once a second and not for each request. All replicas count the same rows.
"""

import random
from collections import Counter
from typing import Final

from durable_work.outbox import Outbox
from request_manager.queries import reconciling
from shared_clients import metrics
from shared_clients.postgres import Database
from shared_models.problems import Problem, Problems

COUNT_SECONDS: Final = 1.0


class PendingLimit:
    """The bound on accepted, unfinished requests, and on events that wait for the bus.

    Args:
        database: the database whose pending requests are counted.
        outbox: refuses everything while it is full.
        total: pending requests of all tenants, at most.
        per_tenant: pending requests of one tenant, at most.
    """

    def __init__(self, database: Database, outbox: Outbox, *, total: int, per_tenant: int) -> None:
        self._database = database
        self._outbox = outbox
        self._total = total
        self._per_tenant = per_tenant
        self._pending = Counter[str]()

    async def measure(self) -> None:
        """Count the pending requests of all tenants; a loop calls this every `COUNT_SECONDS`."""
        self._pending = Counter(await reconciling.count_pending_by_tenant(self._database))

    def check(self, tenant: str) -> None:
        """Check that one more request of a tenant may be accepted.

        Raises:
            Problem: RATE_LIMITED over the tenant's bound, OVERLOADED over the total or while the outbox is full.
        """
        if self._outbox.full:
            raise _refusal(Problems.OVERLOADED, "outbox", "Too many accepted requests wait for the bus.")
        if self._pending[tenant] >= self._per_tenant:
            detail = f"This tenant has {self._per_tenant} requests that have not ended."
            raise _refusal(Problems.RATE_LIMITED, "tenant_pending", detail)
        if self._pending.total() >= self._total:
            raise _refusal(Problems.OVERLOADED, "pending", f"{self._total} requests have not ended, the most allowed.")


def _refusal(kind: Problems, limit: str, why: str) -> Problem:
    metrics.ADMISSION_REFUSED.labels(limit).inc()
    retry_after = str(random.randint(5, 10))  # noqa: S311 - jitter, no secret
    detail = f"{why} Nothing was stored; send the request again after Retry-After seconds."
    return Problem(kind, detail, headers={"Retry-After": retry_after})

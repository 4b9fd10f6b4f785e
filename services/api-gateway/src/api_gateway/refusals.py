"""Refusals of identity (401) and of permission (403), written to the audit log without letting strangers fill a disk.

In every minute the first few refusals of each kind are written one by one; the rest of that minute becomes one entry
with their number. A refusal changes nothing, so there is no transaction to write it in: it waits in memory for the next
write, at most a second, and is lost if the process dies first. An entry has the method and the route of the request,
and nothing else that a caller can choose.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from durable_work.audit import Actor, Entry, record
from shared_clients.errors import Unconfirmed
from shared_clients.postgres import Database
from shared_models.audit import Action, Outcome
from shared_models.requests import Principal

log = structlog.get_logger()

MAX_WRITTEN: Final = 10
"""Entries of one kind in one minute of one process; further refusals are only counted."""
MINUTE: Final = 60.0
ACTIONS: Final = {401: Action.IDENTITY_REFUSED, 403: Action.PERMISSION_REFUSED}
METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
UNKNOWN_CALLER: Final = Actor("none", "unknown")
CALLERS_KEY: Final = "flotilla.callers"
"""The key in the ASGI scope of a list that has the caller once it is identified."""


class RefusalLog:
    """The refusals that are not written yet.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minute_ends = clock() + MINUTE
        self._unwritten: list[Entry] = []
        self._seen = Counter[Action]()
        self._counted = Counter[Action]()

    def add(self, status: int, subject: str, caller: Principal | None) -> None:
        """Keep a refusal for the next write, or only count it."""
        action = ACTIONS[status]
        self._seen[action] += 1
        if self._seen[action] > MAX_WRITTEN:
            self._counted[action] += 1
        else:
            actor, tenant = (Actor.of(caller), caller.tenant) if caller else (UNKNOWN_CALLER, "unknown")
            self._unwritten.append(Entry(tenant, actor, action, subject, outcome=Outcome.REFUSED))

    async def write(self, database: Database) -> None:
        """Write the unwritten refusals, and at the end of a minute the counts.

        A loop calls it every second. While the database is away, everything stays in memory, within the same bounds.
        """
        minute_over = self._clock() >= self._minute_ends
        unwritten = list(self._unwritten)
        counted = self._counted.copy() if minute_over else Counter[Action]()
        entries = [*unwritten, *(_count_entry(action, count) for action, count in counted.items())]
        if entries:
            try:
                async with database.transaction() as tx:
                    for entry in entries:
                        await record(tx, entry)
            except Unconfirmed as error:
                log.warning("refusals_not_written", entries=len(entries), error=str(error))
                return
        del self._unwritten[: len(unwritten)]
        self._counted -= counted
        if minute_over:
            self._seen.clear()
            self._minute_ends = self._clock() + MINUTE


class RefusalMiddleware:
    """Adds every response with 401 or 403 to the refusal log; plain ASGI."""

    def __init__(self, app: ASGIApp, refusals: RefusalLog) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        callers: list[Principal] = []
        scope[CALLERS_KEY] = callers

        async def send_and_log(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in ACTIONS:
                self._refusals.add(message["status"], _subject(scope), callers[-1] if callers else None)
            await send(message)

        await self._app(scope, receive, send_and_log)


def remember_caller(scope: Scope, caller: Principal) -> None:
    """Name the caller of a request to the middleware, for the entry of a refusal that may follow."""
    scope[CALLERS_KEY].append(caller)


def _subject(scope: Scope) -> str:
    """Return the method and the route, both from a fixed set, whatever the client sent."""
    method = scope["method"] if scope["method"] in METHODS else "other"
    return f"{method} {getattr(scope.get('route'), 'path', 'before any route')}"


def _count_entry(action: Action, count: int) -> Entry:
    return Entry("unknown", UNKNOWN_CALLER, Action.REFUSALS_COUNTED, action, {"count": str(count)}, Outcome.REFUSED)

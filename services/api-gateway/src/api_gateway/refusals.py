"""Refusals of identity (401) and of permission (403), for the audit log, without giving strangers a way to fill a disk.

Of each kind a minute's first few are written one by one; the rest of that minute is one entry that says how many. A
refusal has no effect that it could be committed with: it waits here for the next turn, a second at most, and what
waits is lost when the process dies. Nothing that a caller chooses is written, but the method and the route it took.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from durable_work.audit import Actor, Entry, record
from shared_clients.errors import Transient
from shared_clients.postgres import Database
from shared_models.audit import Action, Outcome
from shared_models.requests import Principal

log = structlog.get_logger()

WRITTEN: Final = 10
"""Entries of one kind in one minute of one process; the rest is counted."""
MINUTE: Final = 60.0
KINDS: Final = {401: Action.IDENTITY_REFUSED, 403: Action.PERMISSION_REFUSED}
METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
STRANGER: Final = Actor("none", "unknown")
KEY: Final = "flotilla.callers"


class Refusals:
    """What was refused and is not written yet.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minute_ends = clock() + MINUTE
        self._waiting: list[Entry] = []
        self._noted = Counter[Action]()
        self._more = Counter[Action]()

    def note(self, status: int, subject: str, caller: Principal | None) -> None:
        """Remember a refusal, or only that there was one more."""
        action = KINDS[status]
        self._noted[action] += 1
        if self._noted[action] > WRITTEN:
            self._more[action] += 1
        else:
            actor, tenant = (Actor.of(caller), caller.tenant) if caller else (STRANGER, "unknown")
            self._waiting.append(Entry(tenant, actor, action, subject, outcome=Outcome.REFUSED))

    async def write(self, database: Database) -> None:
        """Write what waits; call it every second. While the database is away, only counts go on."""
        ending = self._clock() >= self._minute_ends
        waiting, more = list(self._waiting), self._more.copy() if ending else Counter[Action]()
        entries = [*waiting, *(_rest(action, count) for action, count in more.items())]
        if entries:
            try:
                async with database.transaction() as tx:
                    for entry in entries:
                        await record(tx, entry)
            except Transient as error:
                log.warning("refusals_not_written", entries=len(entries), error=str(error))
                return
        del self._waiting[: len(waiting)]
        self._more -= more
        if ending:
            self._noted.clear()
            self._minute_ends = self._clock() + MINUTE


class RefusalWatch:
    """ASGI middleware that notes every 401 and 403."""

    def __init__(self, app: ASGIApp, refusals: Refusals) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        callers: list[Principal] = []
        scope[KEY] = callers

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in KINDS:
                self._refusals.note(message["status"], _what(scope), callers[-1] if callers else None)
            await send(message)

        await self._app(scope, receive, watched)


def known(scope: Scope, caller: Principal) -> None:
    """Tell the watch who calls."""
    scope[KEY].append(caller)


def _what(scope: Scope) -> str:
    """Return method and route: from a fixed set, whatever was sent."""
    method = scope["method"] if scope["method"] in METHODS else "other"
    return f"{method} {getattr(scope.get('route'), 'path', 'before any route')}"


def _rest(action: Action, count: int) -> Entry:
    return Entry("unknown", STRANGER, Action.REFUSALS_COUNTED, action, {"count": str(count)}, Outcome.REFUSED)

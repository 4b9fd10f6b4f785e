"""Workers of agent-service without their loops: a test makes them consume requests, claim runs and end them.

Faked: the bus, which only keeps its messages. Inbox, outbox, leases, slots and every statement are the real ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from agent_service import events
from agent_service.domain.runs import AgentRevision, ClaimedRun, answered
from agent_service.queries.runs import RUNS
from agent_service.usecases.claim_runs import claim_runs
from agent_service.usecases.end_run import end_run
from durable_work.inbox import Inbox
from durable_work.jobs import Slots, WorkerLease
from durable_work.outbox import Outbox, message_of
from shared_clients.bus.port import Message
from shared_clients.postgres import Database, Tx
from shared_models.catalog import REQUEST_CANCELLED, REQUEST_CREATED
from shared_models.envelope import EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import Principal, RequestCancelled, RequestCreated, ResponseReady, Usage
from tests.simulators.bus import ScriptedBus
from tests.simulators.rows import row, rows, run

ADA = Principal(
    issuer="idp",
    subject="ada",
    tenant="acme",
    credential="key-1",
    channel="api",
    scopes=frozenset({"requests", "sessions"}),
)
LIFETIME = timedelta(minutes=15)
TABLES = ("sessions", "runs", "steps", "messages", "cancellations", "inbox", "outbox", "worker_leases")


@dataclass
class Worker:
    """One process of agent-service; open it before use."""

    database: Database
    slots_: int = 0
    begun: list[ClaimedRun] = field(default_factory=list)
    bus: ScriptedBus = field(default_factory=ScriptedBus)

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.database, self.bus)
        self.lease = WorkerLease(self.database, (RUNS,))
        self.slots: Slots[ClaimedRun] = Slots(self.slots_, self._begin, self.lease)
        self.inbox = Inbox(self.database, "agent-service", events.reactions(self.outbox, self.slots))

    @property
    def id(self) -> UUID:
        return self.lease.worker

    async def open(self) -> "Worker":
        await self.lease.renew()
        return self

    async def die(self) -> None:
        """Let the lease run out, as the lease of a killed process does."""
        await run(self.database, "UPDATE worker_leases SET expires_at = now() WHERE worker = :worker", worker=self.id)

    async def claim(self, most: int = 8) -> Sequence[ClaimedRun]:
        return await claim_runs(self.database, self.outbox, self.id, most)

    async def claim_one(self) -> ClaimedRun:
        [only] = await self.claim()
        return only

    async def end(self, run: ClaimedRun, content: str = "Done.", messages: Sequence[str] = ()) -> None:
        async with self.database.transaction() as tx:
            await self.end_in(tx, run, content, messages)

    async def end_in(self, tx: Tx, run: ClaimedRun, content: str = "Done.", messages: Sequence[str] = ()) -> None:
        await end_run(tx, self.outbox, run, answer(content), messages=messages)

    async def _begin(self, run: ClaimedRun) -> None:
        self.begun.append(run)


@dataclass
class Session:
    """A conversation, with the messages that request-manager publishes about it."""

    session_id: UUID = field(default_factory=new_id)
    principal: Principal = ADA
    requests: dict[int, UUID] = field(default_factory=dict)

    def created(self, turn: int, content: str = "hi", *, expires: timedelta = LIFETIME) -> Message:
        data = RequestCreated(content=content, principal=self.principal)
        return message_of(new_event("request-manager", REQUEST_CREATED, data, self._context(turn, expires)))

    def cancelled(self, turn: int) -> Message:
        data = RequestCancelled(principal=self.principal)
        return message_of(new_event("request-manager", REQUEST_CANCELLED, data, self._context(turn)))

    def request(self, turn: int) -> UUID:
        return self.requests.setdefault(turn, new_id())

    async def statuses(self, database: Database) -> dict[int, str]:
        statement = "SELECT turn, status FROM runs WHERE session_id = :session ORDER BY turn"
        return {one["turn"]: one["status"] for one in await rows(database, statement, session=self.session_id)}

    async def run(self, database: Database, turn: int) -> "Row":
        statement = """SELECT status, epoch, tries, worker, answer, truncated, failure, terminal_frame FROM runs
                       WHERE execution_id = :id"""
        return Row(**await row(database, statement, id=self.request(turn)))

    async def published_types(self, database: Database, turn: int) -> list[str]:
        """Return the types of a request's events in the outbox, the oldest first."""
        statement = (
            "SELECT attributes->>'type' AS type FROM outbox WHERE attributes->>'correlationid' = :id ORDER BY id"
        )
        return [one["type"] for one in await rows(database, statement, id=str(self.request(turn)))]

    def _context(self, turn: int, expires: timedelta = LIFETIME) -> EventContext:
        return EventContext(
            self.request(turn), self.session_id, self.principal.tenant, turn, datetime.now(UTC) + expires
        )


@dataclass(frozen=True, slots=True)
class Row:
    """The row of a run."""

    status: str
    epoch: int
    tries: int
    worker: UUID | None
    answer: str | None
    truncated: str | None
    failure: dict[str, str] | None
    terminal_frame: dict[str, object] | None


def answer(content: str) -> ResponseReady:
    return answered(content, AgentRevision("assistant", "r1"), Usage(model_calls=1))


async def emptied(database: Database) -> Database:
    """Delete every row, and wait until the database has been up long enough for expired leases to count."""
    for table in TABLES:
        await run(database, f"DELETE FROM {table}")
    await run(
        database,
        "SELECT pg_sleep(extract(epoch FROM pg_postmaster_start_time() + interval '3.1 seconds' - now()))",
    )
    return database

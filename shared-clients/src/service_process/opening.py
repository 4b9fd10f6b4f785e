"""The one way to open a service, so that its `app.py` says only what is its own.

`open_service` opens the service's schema. `connect` adds its outbox and its dead letters, and `add_jobs` its workers.
`start` then makes the HTTP application, subscribes to the service's events and starts the loops, standard and own.
Everything closes in reverse order: first the loops and the subscription, then jobs are handed back, the outbox is
published, and the service's own resources and its database close.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from uuid import UUID

from fastapi import APIRouter, FastAPI

from durable_work.dead_letters import DeadLetters
from durable_work.inbox import Inbox, Reaction
from durable_work.jobs import ClaimedJob, Job, JobRunner, JobTable, JobType, Slots, WorkerLease
from durable_work.outbox import Outbox
from service_process.dead_letters import dead_letter_routes
from service_process.settings import Mode, ProcessSettings
from service_process.standard_loops import database_loops, event_loops, lease_loops, slots_loops
from service_process.web import BodyLimits, add_metrics, create_app, event_routes
from shared_clients.bus.port import Bus
from shared_clients.identity import TrustedKeys, Verifier
from shared_clients.loops import Loop, Tasks, every
from shared_clients.postgres import Database, Tx, open_database
from shared_models.catalog import topics_of
from shared_models.envelope import Envelope
from shared_models.services import CatalogueEntry

type OnUnpublishable = Callable[[Tx, Outbox, Envelope, str], Awaitable[None]]
"""Called in the transaction that marks an event of the outbox dead, because no transport can publish it."""
type ClaimFor[Work: Job] = Callable[[UUID, int, str, Collection[str]], Awaitable[Sequence[Work]]]
"""Called with (worker, most, after, full); see `durable_work.jobs.ClaimJobs`."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The parts of a service that exchanges events and is called by the gateway.

    Attributes:
        outbox: publishes the service's events.
        verifier: verifies the tokens of its callers.
    """

    bus: Bus
    outbox: Outbox
    verifier: Verifier
    letters: DeadLetters


class Opening:
    """A service while it is opened; made by `open_service`.

    Attributes:
        database: the service's schema.
        draining: set when the process stops, so that open responses can end.
    """

    def __init__(
        self, entry: CatalogueEntry, settings: ProcessSettings, database: Database, stack: AsyncExitStack
    ) -> None:
        self.database = database
        self.draining = asyncio.Event()
        self._entry = entry
        self._settings = settings
        self._stack = stack
        self._connection: Connection | None = None
        self._lease: WorkerLease | None = None
        self._closing_slots: Sequence[Callable[[], Awaitable[None]]] = ()
        self._loops: Mapping[str, Loop] = {}

    async def enter[T](self, resource: AbstractAsyncContextManager[T]) -> T:
        """Open a resource of the service's own; it closes after all loops have ended."""
        return await self._stack.enter_async_context(resource)

    def connect(self, bus: Bus, trusted: TrustedKeys, *, on_unpublishable: OnUnpublishable | None = None) -> Connection:
        """Connect the service with the bus and with its callers.

        Args:
            bus: the fleet's bus.
            trusted: the keys of the services that may name callers.
            on_unpublishable: called when an event of this service can never be published.
        """

        async def on_dead(tx: Tx, event: Envelope, error: str) -> None:
            if on_unpublishable is not None:
                await on_unpublishable(tx, outbox, event, error)

        outbox = Outbox(self.database, bus, on_dead=on_dead)
        name = self._entry.name
        self._connection = Connection(bus, outbox, Verifier(name, trusted), DeadLetters(self.database, name))
        return self._connection

    def add_slots[Work: Job](
        self,
        tables: Collection[JobTable],
        count: int,
        perform: Callable[[Work], Awaitable[None]],
        claim: ClaimFor[Work],
    ) -> Slots[Work]:
        """Work on up to `count` jobs at once, with a claim and a performance of the service's own.

        Args:
            tables: the job tables whose rows name this worker.
            count: jobs that go on at once.
            perform: does one job, and handles its own failures.
            claim: takes jobs from the tables.
        """
        lease = self._lease = self._lease or WorkerLease(self.database)
        lease.add_tables(tables)
        slots: Slots[Work] = Slots(count, perform, lease)
        loops = slots_loops(
            self.database, tables, slots, lambda most, after, full: claim(lease.worker, most, after, full)
        )
        self._closing_slots = [*self._closing_slots, slots.close]
        self._loops = {**self._loops, **lease_loops(lease), **loops}
        return slots

    def add_jobs[Work: ClaimedJob, Result](self, job_type: JobType[Work, Result], count: int) -> Slots[Work]:
        """Work on up to `count` jobs of one type at once: claim, perform, retry with pauses, give up, store the end."""
        runner = JobRunner(self.database, job_type)
        slots = self.add_slots((job_type.table,), count, runner.perform, runner.claim)
        orphans = {f"retry orphaned {job_type.table.name}": every(1.0, lambda: runner.retry_orphaned(slots.worker))}
        self._loops = {**self._loops, **orphans}
        return slots

    async def start(
        self,
        routers: Sequence[APIRouter] = (),
        *,
        reactions: Sequence[Reaction] = (),
        loops: Mapping[str, Loop] | None = None,
        dependencies: object = None,
        docs: bool = True,
        public: bool = False,
        limits_at: Mapping[str, BodyLimits] = MappingProxyType({}),
    ) -> FastAPI:
        """Open the HTTP application, subscribe to the service's events, and start all loops.

        Args:
            routers: the service's own routes.
            reactions: one for each type of event that the catalogue has the service consume.
            loops: the service's own loops, by name.
            dependencies: the routes find it as `app.state.dependencies`.
            docs: serve the OpenAPI document of this service in dev; False for a service that serves another one.
            public: strangers reach this service, so it has `/metrics` only in dev; see `create_app`.
            limits_at: other limits of bodies than the default ones, by path.

        Raises:
            ValueError: a loop has the name of a standard one, or the reactions differ from the catalogue of events.
        """
        connection = self._connection
        shared = [] if connection is None else [*self._shared_routes(connection)]
        dev = self._settings.mode is Mode.DEV
        app = create_app(
            self._entry.name,
            routers=[*routers, *shared],
            ready=self.database.ping,
            docs=docs and dev,
            draining=self.draining,
            limits_at=limits_at,
            public=public,
        )
        if dev and public and not docs:
            add_metrics(app)
        app.state.dependencies = dependencies
        standard = {**database_loops(self.database), **self._loops}
        if connection is None:
            await self._take_lease()
        else:
            standard |= await self._exchange_events(connection, reactions)
        tasks = await self.enter(Tasks())
        for name, loop in [*standard.items(), *(loops or {}).items()]:
            tasks.start(name, loop)
        return app

    def _shared_routes(self, connection: Connection) -> Sequence[APIRouter]:
        return [dead_letter_routes(connection.letters, connection.verifier), *event_routes(connection.bus)]

    async def _exchange_events(self, connection: Connection, reactions: Sequence[Reaction]) -> Mapping[str, Loop]:
        """Publish and consume events; jobs are handed back after the last event and before the outbox closes."""
        inbox = Inbox(self.database, self._entry.name, reactions)
        await self.enter(connection.outbox.running())
        await self._take_lease()
        await self.enter(connection.bus.subscribe(self._entry.name, topics_of(self._entry.name), inbox.consume))
        return event_loops(connection.outbox, inbox, connection.letters)

    async def _take_lease(self) -> None:
        if self._lease is None:
            return
        self._stack.push_async_callback(self._lease.release)
        for close_slots in self._closing_slots:
            self._stack.push_async_callback(close_slots)
        await self._lease.renew()


@asynccontextmanager
async def open_service(entry: CatalogueEntry, settings: ProcessSettings) -> AsyncGenerator[Opening]:
    """Open the schema of a service, and yield the `Opening` that opens the rest of it.

    Args:
        entry: the service in the catalogue.
        settings: of this process.
    """
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        database = await stack.enter_async_context(open_database(url, entry.schema))
        yield Opening(entry, settings, database, stack)

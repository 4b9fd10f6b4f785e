"""The outbox as a model: writers, sweeps and publishers of several processes over one table and one bus that fails.

These invariants hold, whichever process dies at whatever time. An event reaches the bus at least once, and only after
its transaction is durable. Its row is deleted only after the bus has said that the event is safe. An event that can
never be published is marked dead once, and its row stays.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from durable_work.outbox import Outbox
from shared_clients.bus.port import Handler, Message
from shared_clients.errors import Permanent, Transient, Unconfirmed
from shared_clients.postgres import Database, Tx, sql
from shared_models.catalog import RUN_CHANGED
from shared_models.envelope import Envelope, EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import RunChanged, Status
from tests.models.database import Server, database_of, witnessed
from tests.models.machine import Model, unless_away
from tests.models.scheduler import Fate, Process, must

PROCESSES = 3
"""Processes at once; a process that died is replaced when its number is used again."""
SOME_PROCESSES = st.lists(st.integers(0, PROCESSES - 1), min_size=1, max_size=4)
TABLES = ("outbox", "model_births", "model_deaths")
INSTRUMENTS = """
    CREATE TABLE IF NOT EXISTS model_births (id text);
    CREATE TABLE IF NOT EXISTS model_deaths (id text);
    CREATE OR REPLACE FUNCTION model_born() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO model_births VALUES (NEW.id); RETURN NULL; END $$;
    CREATE OR REPLACE TRIGGER model_born AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION model_born()
"""
"""A trigger records each event in the transaction that inserts its row."""
INSERT_DEATH = sql("INSERT INTO model_deaths VALUES (:id)")
POISON = "poison"


class RollsBack(Exception):  # noqa: N818 - an outcome
    pass


class GatedBus:
    """A bus that takes a message, loses it, or takes it and loses the answer; it refuses every poisoned message."""

    def __init__(self, model: "OutboxModel") -> None:
        self._model = model
        self.safe: set[str] = set()

    async def publish(self, message: Message) -> None:
        name = message.attributes["id"]
        if await self._model.scheduler.gate("publish") is Fate.LOST:
            raise Transient("lost")
        self._model.scheduler.see(
            await self._model.committed(name), f"{name} was published before its transaction was durable"
        )
        if message.attributes["tenantid"] == POISON:
            raise Permanent("no transport takes this")
        self.safe.add(name)
        if await self._model.scheduler.gate("answer to publish") is Fate.LOST:
            raise Transient("taken, and the answer is lost")

    def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> "NoSubscription":
        raise NotImplementedError

    async def close(self) -> None:
        return


class NoSubscription:
    """The subscription that a publisher never opens."""

    async def __aenter__(self) -> None:
        raise NotImplementedError

    async def __aexit__(self, *_: object) -> None:
        raise NotImplementedError


def event(tenant: str) -> Envelope:
    context = EventContext(new_id(), new_id(), tenant, turn=1, expires=datetime(2040, 1, 1, tzinfo=UTC))
    return new_event("agent-service", RUN_CHANGED, RunChanged(status=Status.RUNNING, epoch=1), context)


class OutboxModel(Model):
    name = "outbox"
    outside: ClassVar[Server]
    outbox: ClassVar[type[Outbox]] = Outbox

    @initialize()
    def open(self) -> None:
        self.now(self.outside.reset(*TABLES))
        self.scheduler.on_tick = self.outside.tick
        self.bus = GatedBus(self)
        self.dead: dict[str, bytes] = {}
        self.running: list[tuple[Process, Database, Outbox] | None] = [None] * PROCESSES

    @rule(processes=SOME_PROCESSES, tenants=st.lists(st.sampled_from(["acme", "acme", POISON]), min_size=1, max_size=3))
    def write(self, processes: list[int], tenants: list[str]) -> None:
        for number in processes:
            process, database, outbox = self._process(number)
            self.start(process, self._write(database, outbox, tenants))

    @rule(processes=SOME_PROCESSES)
    def sweep(self, processes: list[int]) -> None:
        for number in processes:
            process, _, outbox = self._process(number)
            self.start(process, unless_away(outbox.sweep()))

    @rule(seconds=st.sampled_from([3.0, 100.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now(self.scheduler.tick(seconds))

    @invariant()
    def row_is_deleted_only_when_its_event_is_safe_and_dead_rows_stay(self) -> None:
        self.now(self._check())

    async def finish(self) -> None:
        await self.scheduler.quieten()
        for _ in range(4):
            await self.scheduler.tick(100.0)
            process, _, outbox = self._process(0)
            self.scheduler.spawn(process, outbox.sweep())
            await self.scheduler.quieten()
            await self.scheduler.tick(0.1)
            await self.scheduler.quieten()
        await self._check()
        left = await self.outside.rows("SELECT id, tenant, state FROM agent_service.outbox")
        must(all(row["state"] == "dead" for row in left), f"events are left unpublished: {left}")
        born = {row["id"] for row in await self.outside.rows("SELECT id FROM agent_service.model_births")}
        must(born == self.bus.safe | set(self.dead), f"events have vanished: {born - self.bus.safe - set(self.dead)}")

    async def committed(self, name: str) -> bool:
        return bool(await witnessed(self.outside, "SELECT FROM agent_service.model_births WHERE id = $1", name))

    async def _check(self) -> None:
        rows = await self.outside.rows("""
            SELECT b.id, o.state, o.data, o.tenant,
                   (SELECT count(*) FROM agent_service.model_deaths d WHERE d.id = b.id) AS deaths
            FROM agent_service.model_births b LEFT JOIN agent_service.outbox o ON o.id = b.id
        """)
        for row in rows:
            name, state = row["id"], row["state"]
            must(state is not None or name in self.bus.safe, f"the row of {name} went before its event was safe")
            must(row["deaths"] == int(state == "dead"), f"{name} is {state}, and on_dead ran {row['deaths']}x")
            must(state != "dead" or row["tenant"] == POISON, f"{name} is dead and could have been published")
            if state == "dead":
                must(self.dead.setdefault(name, row["data"]) == row["data"], f"the dead event {name} lost its bytes")
        gone = self.dead.keys() - {row["id"] for row in rows if row["state"] == "dead"}
        must(not gone, f"dead rows are gone: {gone}")

    async def _write(self, database: Database, outbox: Outbox, tenants: list[str]) -> None:
        """Write a transaction of one event, one of all events, and one that rolls back."""
        rolled_back = ["acme"]
        for written in (tenants[:1], tenants, rolled_back):
            with suppress(Unconfirmed, RollsBack):
                async with database.transaction() as tx:
                    for tenant in written:
                        await outbox.publish(tx, event(tenant))
                    if written is rolled_back:
                        raise RollsBack

    def _process(self, number: int) -> tuple[Process, Database, Outbox]:
        running = self.running[number]
        if running is not None and not running[0].dead:
            return running
        process = self.born("service")
        database = database_of(self.outside, self.scheduler)
        outbox = self.outbox(database, self.bus, _on_dead)
        self.scheduler.spawn(process, _running(outbox))
        self.running[number] = process, database, outbox
        return process, database, outbox


async def _on_dead(tx: Tx, event: Envelope, error: str) -> None:
    del error
    await tx.run(INSERT_DEATH, id=event.id)


async def _running(outbox: Outbox) -> None:
    async with outbox.running():
        await asyncio.get_running_loop().create_future()

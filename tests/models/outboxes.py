"""The outbox as a model: writers, sweeps and publishers of several processes over one table and one bus that fails.

What has to hold, whoever dies when: an event reaches the bus only when its transaction is durable, and then at least
once; its row goes only when the bus has said that it is safe; an event that can never be told is dead, once, and stays.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from durable_work.outbox import Outbox
from shared_clients.bus.port import Handler, Message
from shared_clients.errors import Permanent, Transient
from shared_clients.postgres import Database, Tx, sql
from shared_models.catalog import RUN_CHANGED
from shared_models.envelope import Envelope, EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import RunChanged, Status
from tests.models.database import Server, database_of, witnessed
from tests.models.machine import Model, unless_away
from tests.models.scheduler import Fate, Process, must

SEATS = 3
"""Processes at once; whoever dies has a successor when its seat is used again."""
SOME_SEATS = st.lists(st.integers(0, SEATS - 1), min_size=1, max_size=4)
TABLES = ("outbox", "model_births", "model_deaths")
INSTRUMENTS = """
    CREATE TABLE IF NOT EXISTS model_births (id text);
    CREATE TABLE IF NOT EXISTS model_deaths (id text);
    CREATE OR REPLACE FUNCTION model_born() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO model_births VALUES (NEW.id); RETURN NULL; END $$;
    CREATE OR REPLACE TRIGGER model_born AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION model_born()
"""
"""Writes down, in the same transaction, which events there ever were."""
DIE = sql("INSERT INTO model_deaths VALUES (:id)")
POISON = "poison"


class ChangedMind(Exception):  # noqa: N818 - an outcome
    pass


class GatedBus:
    """A bus that takes a message, loses it, or takes it and cannot say so; and never takes poison."""

    def __init__(self, model: "OutboxModel") -> None:
        self._model = model
        self.safe: set[str] = set()

    async def publish(self, message: Message) -> None:
        name = message.attributes["id"]
        if await self._model.scheduler.gate("publish") is Fate.LOST:
            raise Transient("lost")
        self._model.scheduler.see(
            await self._model.committed(name), f"{name} was told before its transaction was durable"
        )
        if message.attributes["tenantid"] == POISON:
            raise Permanent("nobody can take this")
        self.safe.add(name)
        if await self._model.scheduler.gate("answer to publish") is Fate.LOST:
            raise Transient("taken, and nobody heard")

    def subscribe(self, group: str, topics: frozenset[str], handler: Handler) -> "NoSubscription":
        raise NotImplementedError

    async def close(self) -> None:
        return


class NoSubscription:
    """Publishers do not listen."""

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
        self.seats: list[tuple[Process, Database, Outbox] | None] = [None] * SEATS

    @rule(seats=SOME_SEATS, tenants=st.lists(st.sampled_from(["acme", "acme", POISON]), min_size=1, max_size=3))
    def write(self, seats: list[int], tenants: list[str]) -> None:
        for seat in seats:
            process, database, outbox = self._seat(seat)
            self.start(process, self._write(database, outbox, tenants))

    @rule(seats=SOME_SEATS)
    def sweep(self, seats: list[int]) -> None:
        for seat in seats:
            process, _, outbox = self._seat(seat)
            self.start(process, unless_away(outbox.sweep()))

    @rule(seconds=st.sampled_from([3.0, 100.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now(self.scheduler.tick(seconds))

    @invariant()
    def row_goes_only_when_its_event_is_safe_and_the_dead_stay(self) -> None:
        self.now(self._check())

    async def finish(self) -> None:
        await self.scheduler.quieten()
        for _ in range(4):
            await self.scheduler.tick(100.0)
            process, _, outbox = self._seat(0)
            self.scheduler.spawn(process, outbox.sweep())
            await self.scheduler.quieten()
            await self.scheduler.tick(0.1)
            await self.scheduler.quieten()
        await self._check()
        left = await self.outside.rows("SELECT id, tenant, state FROM agent_service.outbox")
        must(all(row["state"] == "dead" for row in left), f"events are left untold: {left}")
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
            must(row["deaths"] == int(state == "dead"), f"{name} is {state}, and its death was told {row['deaths']}x")
            must(state != "dead" or row["tenant"] == POISON, f"{name} is dead and could have been told")
            if state == "dead":
                must(self.dead.setdefault(name, row["data"]) == row["data"], f"the dead {name} lost its bytes")
        gone = self.dead.keys() - {row["id"] for row in rows if row["state"] == "dead"}
        must(not gone, f"the dead have gone: {gone}")

    async def _write(self, database: Database, outbox: Outbox, tenants: list[str]) -> None:
        """Write a transaction of one event and one of all; the last one changes its mind."""
        undone = ["acme"]
        for told in (tenants[:1], tenants, undone):
            with suppress(Transient, ChangedMind):
                async with database.transaction() as tx:
                    for tenant in told:
                        await outbox.publish(tx, event(tenant))
                    if told is undone:
                        raise ChangedMind

    def _seat(self, number: int) -> tuple[Process, Database, Outbox]:
        taken = self.seats[number]
        if taken is not None and not taken[0].dead:
            return taken
        process = self.born("service")
        database = database_of(self.outside, self.scheduler)
        outbox = self.outbox(database, self.bus, _on_dead)
        self.scheduler.spawn(process, _running(outbox))
        self.seats[number] = process, database, outbox
        return process, database, outbox


async def _on_dead(tx: Tx, event: Envelope, error: str) -> None:
    del error
    await tx.run(DIE, id=event.id)


async def _running(outbox: Outbox) -> None:
    async with outbox.running():
        await asyncio.get_running_loop().create_future()

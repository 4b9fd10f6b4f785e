"""The outbox on real Postgres: an event is told if and only if its transaction is, and kept until it is safe."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from durable_work.outbox import Outbox
from shared_clients.errors import Permanent, Transient
from shared_clients.postgres import Database, Tx, sql
from shared_models.catalog import RUN_CHANGED
from shared_models.envelope import About, Envelope, new_event
from shared_models.ids import new_id
from shared_models.requests import RunChanged, Status
from tests.simulators.bus import ScriptedBus


def event() -> Envelope:
    about = About(new_id(), new_id(), "acme", turn=3, expires=datetime.now(UTC))
    return new_event("agent-service", RUN_CHANGED, RunChanged(status=Status.RUNNING, epoch=1), about)


async def rows(database: Database) -> dict[str, str]:
    async with database.reading() as tx:
        return {row["id"]: row["state"] for row in await tx.rows(sql("SELECT id, state FROM outbox"))}


async def overdue(database: Database) -> None:
    async with database.reading() as tx:
        await tx.run(sql("UPDATE outbox SET next_attempt_at = now() - interval '1 second'"))


async def test_committed_event_is_published_at_once_and_its_row_goes(database: Database, bus: ScriptedBus) -> None:
    outbox, told = Outbox(database, bus), event()
    async with outbox.running(), database.transaction() as tx:
        await outbox.publish(tx, told)
    assert [message.attributes for message in bus.safe] == [told.attributes()]
    assert bus.safe[0].data == told.data
    assert bus.safe[0].key == told.partitionkey
    assert await rows(database) == {}


async def failing(database: Database, outbox: Outbox) -> None:
    async with database.transaction() as tx:
        await outbox.publish(tx, event())
        raise RuntimeError("changed my mind")


async def test_event_of_a_transaction_that_rolls_back_is_never_told(database: Database, bus: ScriptedBus) -> None:
    outbox = Outbox(database, bus)
    async with outbox.running():
        with pytest.raises(RuntimeError, match="changed my mind"):
            await failing(database, outbox)
    assert bus.tries == 0
    assert await rows(database) == {}


async def test_event_that_did_not_get_through_is_kept_and_swept(database: Database, bus: ScriptedBus) -> None:
    outbox, told = Outbox(database, bus), event()
    bus.faults = [Transient]
    async with outbox.running(), database.transaction() as tx:
        await outbox.publish(tx, told)
    assert await rows(database) == {told.id: "pending"}
    assert await outbox.sweep() == 0, "it is left alone for a while first"
    await overdue(database)
    async with outbox.running():
        assert await outbox.sweep() == 1
    assert [message.attributes["id"] for message in bus.safe] == [told.id]
    assert await rows(database) == {}


async def test_event_of_a_process_that_died_before_handing_it_over_is_swept(
    database: Database, bus: ScriptedBus
) -> None:
    dead, told = Outbox(database, bus), event()
    async with database.transaction() as tx:
        await dead.publish(tx, told)
    await overdue(database)
    successor = Outbox(database, bus)
    async with successor.running():
        await successor.sweep()
    assert [message.attributes for message in bus.safe] == [told.attributes()]
    assert await rows(database) == {}


async def test_two_sweeps_at_once_do_not_take_the_same_row(database: Database, bus: ScriptedBus) -> None:
    outbox = Outbox(database, bus)
    async with database.transaction() as tx:
        for _ in range(20):
            await outbox.publish(tx, event())
    await overdue(database)
    one, two = Outbox(database, bus), Outbox(database, bus)
    async with one.running(), two.running():
        taken = await one.sweep() + await two.sweep()
    assert taken == 20
    assert bus.tries == 20


async def test_event_that_can_never_be_published_is_dead_and_its_owner_is_told(
    database: Database, bus: ScriptedBus
) -> None:
    buried: list[UUID] = []

    async def on_dead(tx: Tx, dead: Envelope, error: str) -> None:
        assert error == "as scripted"
        assert await tx.row(sql("SELECT 1 AS one FROM outbox WHERE id = :id AND state = 'dead'"), id=dead.id)
        buried.append(dead.correlationid)

    outbox, told = Outbox(database, bus, on_dead), event()
    bus.faults = [Permanent]
    async with outbox.running(), database.transaction() as tx:
        await outbox.publish(tx, told)
    assert buried == [told.correlationid]
    assert await rows(database) == {told.id: "dead"}
    await overdue(database)
    assert await outbox.sweep() == 0, "the dead are not tried again"


async def test_bug_in_burying_one_event_holds_up_no_other(database: Database, bus: ScriptedBus) -> None:
    async def on_dead(tx: Tx, dead: Envelope, error: str) -> None:
        raise ValueError("a bug")

    outbox, poison, good = Outbox(database, bus, on_dead), event(), event()
    bus.faults = [Permanent]
    async with outbox.running():
        async with database.transaction() as tx:
            await outbox.publish(tx, poison)
        async with database.transaction() as tx:
            await outbox.publish(tx, good)
    assert [message.attributes["id"] for message in bus.safe] == [good.id]
    assert await rows(database) == {poison.id: "pending"}


async def test_what_ends_the_context_rises_as_it_is(database: Database, bus: ScriptedBus) -> None:
    with pytest.raises(LookupError, match="something else"):
        async with Outbox(database, bus).running():
            raise LookupError("something else")

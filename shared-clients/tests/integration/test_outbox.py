"""The outbox on real Postgres: an event is published only after its commit, and kept until it is safe."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from durable_work.outbox import SWEEP_BATCH, Outbox
from shared_clients.errors import Permanent, Transient
from shared_clients.postgres import Database, Tx, sql
from shared_models.catalog import RUN_CHANGED
from shared_models.envelope import Envelope, EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import RunChanged, Status
from tests.simulators.bus import ScriptedBus


def event() -> Envelope:
    context = EventContext.of_request(new_id(), new_id(), "acme", turn=3, expires=datetime.now(UTC))
    return new_event("agent-service", RUN_CHANGED, RunChanged(status=Status.RUNNING, epoch=1), context)


async def rows(database: Database) -> dict[str, str]:
    async with database.autocommit() as tx:
        return {row["id"]: row["state"] for row in await tx.rows(sql("SELECT id, state FROM outbox"))}


async def overdue(database: Database) -> None:
    async with database.autocommit() as tx:
        await tx.run(sql("UPDATE outbox SET next_attempt_at = now() - interval '1 second'"))


async def test_committed_event_is_published_at_once_and_its_row_goes(database: Database, bus: ScriptedBus) -> None:
    outbox, written = Outbox(database, bus), event()
    async with outbox.running(), database.transaction() as tx:
        await outbox.publish(tx, written)
    assert [message.attributes for message in bus.safe] == [written.attributes()]
    assert bus.safe[0].data == written.data
    assert bus.safe[0].key == written.partitionkey
    assert await rows(database) == {}


async def failing(database: Database, outbox: Outbox) -> None:
    async with database.transaction() as tx:
        await outbox.publish(tx, event())
        raise RuntimeError("changed my mind")


async def test_event_of_a_transaction_that_rolls_back_is_never_published(database: Database, bus: ScriptedBus) -> None:
    outbox = Outbox(database, bus)
    async with outbox.running():
        with pytest.raises(RuntimeError, match="changed my mind"):
            await failing(database, outbox)
    assert bus.tries == 0
    assert await rows(database) == {}


async def test_event_that_the_bus_did_not_take_is_kept_and_swept(database: Database, bus: ScriptedBus) -> None:
    outbox, written = Outbox(database, bus), event()
    bus.faults = [Transient]
    async with outbox.running(), database.transaction() as tx:
        await outbox.publish(tx, written)
    assert await rows(database) == {written.id: "pending"}
    assert await outbox.sweep() == 0, "it is left alone for a while first"
    await overdue(database)
    async with outbox.running():
        assert await outbox.sweep() == 1
    assert [message.attributes["id"] for message in bus.safe] == [written.id]
    assert await rows(database) == {}


async def test_event_of_a_process_that_died_before_handing_it_over_is_swept(
    database: Database, bus: ScriptedBus
) -> None:
    dead, written = Outbox(database, bus), event()
    async with database.transaction() as tx:
        await dead.publish(tx, written)
    await overdue(database)
    successor = Outbox(database, bus)
    async with successor.running():
        await successor.sweep()
    assert [message.attributes for message in bus.safe] == [written.attributes()]
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


async def keep(database: Database, outbox: Outbox, count: int) -> None:
    async with database.transaction() as tx:
        for _ in range(count):
            await outbox.publish(tx, event())
    await overdue(database)


async def test_sweep_publishes_a_backlog_without_a_pause(database: Database, bus: ScriptedBus) -> None:
    outbox = Outbox(database, bus)
    await keep(database, outbox, 2 * SWEEP_BATCH + 10)
    async with Outbox(database, bus).running():
        assert await outbox.sweep() == 2 * SWEEP_BATCH + 10, "one sweep, and no pause between its batches"
    assert len(bus.safe) == 2 * SWEEP_BATCH + 10


async def test_while_the_bus_is_away_a_sweep_tries_no_more_than_a_batch(database: Database, bus: ScriptedBus) -> None:
    outbox = Outbox(database, bus)
    await keep(database, outbox, SWEEP_BATCH + 10)
    bus.faults = [Transient] * (SWEEP_BATCH + 10)
    assert await outbox.sweep() == bus.tries == SWEEP_BATCH


async def test_event_that_has_waited_for_an_hour_goes_within_seconds_of_the_bus(
    database: Database, bus: ScriptedBus
) -> None:
    outbox = Outbox(database, bus)
    await keep(database, outbox, 1)
    async with database.autocommit() as tx:
        await tx.run(sql("UPDATE outbox SET attempts = 60"))
    bus.faults = [Transient]
    await outbox.sweep()
    async with database.autocommit() as tx:
        row = await tx.row(sql("SELECT extract(epoch FROM next_attempt_at - now())::float8 AS pause FROM outbox"))
    assert row is not None
    assert 0 < row["pause"] <= 7.5


async def test_event_that_can_never_be_published_is_dead_and_on_dead_is_called(
    database: Database, bus: ScriptedBus
) -> None:
    dead_requests: list[UUID | None] = []

    async def on_dead(tx: Tx, dead: Envelope, error: str) -> None:
        assert error == "as scripted"
        assert await tx.row(sql("SELECT 1 AS one FROM outbox WHERE id = :id AND state = 'dead'"), id=dead.id)
        dead_requests.append(dead.request_id)

    outbox, written = Outbox(database, bus, on_dead), event()
    bus.faults = [Permanent]
    async with outbox.running(), database.transaction() as tx:
        await outbox.publish(tx, written)
    assert dead_requests == [written.request_id]
    assert await rows(database) == {written.id: "dead"}
    await overdue(database)
    assert await outbox.sweep() == 0, "dead rows are not tried again"


async def test_bug_in_on_dead_holds_up_no_other_event(database: Database, bus: ScriptedBus) -> None:
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


async def test_error_that_ends_the_context_rises_as_it_is(database: Database, bus: ScriptedBus) -> None:
    with pytest.raises(LookupError, match="something else"):
        async with Outbox(database, bus).running():
            raise LookupError("something else")


async def test_outbox_is_full_while_too_many_rows_wait_and_not_afterwards(database: Database, bus: ScriptedBus) -> None:
    outbox = Outbox(database, bus, max_pending=3)
    for _ in range(3):
        await outbox.sweep()
        assert not outbox.full
        async with database.transaction() as tx:
            await outbox.publish(tx, event())
    await outbox.sweep()
    assert outbox.full
    async with database.autocommit() as tx:
        await tx.run(sql("DELETE FROM outbox"))
    await outbox.sweep()
    assert not outbox.full


async def test_outbox_is_full_when_one_row_has_waited_too_long(database: Database, bus: ScriptedBus) -> None:
    outbox = Outbox(database, bus, max_age_seconds=900)
    for seconds, full in ((10, False), (901, True)):
        async with database.transaction() as tx:
            await outbox.publish(tx, event())
        async with database.autocommit() as tx:
            await tx.run(sql("UPDATE outbox SET created_at = now() - make_interval(secs => :seconds)"), seconds=seconds)
        await outbox.sweep()
        assert outbox.full is full
        async with database.autocommit() as tx:
            await tx.run(sql("DELETE FROM outbox"))


async def test_a_dead_row_does_not_make_the_outbox_full(database: Database, bus: ScriptedBus) -> None:
    outbox = Outbox(database, bus, max_pending=1)
    async with database.transaction() as tx:
        await outbox.publish(tx, event())
    async with database.autocommit() as tx:
        await tx.run(sql("UPDATE outbox SET state = 'dead', died_at = now()"))
    await outbox.sweep()
    assert not outbox.full

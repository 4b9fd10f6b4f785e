"""The inbox gives every event one effect or one death, however it is delivered; each planted fault is found."""

from dataclasses import replace

import pytest

from durable_work.inbox import Inbox
from durable_work.inbox.consuming import Delivery
from durable_work.inbox.outcomes import Parked, ParkedRow
from durable_work.inbox.queries import INSERT_DONE
from shared_clients.bus.port import Message
from shared_clients.errors import OutsideError
from shared_clients.postgres import Database, Tx, sql
from shared_models.envelope import Envelope
from tests.models.database import Server
from tests.models.inboxes import CONSUMER, INSTRUMENTS, InboxModel
from tests.models.machine import budget, found, play
from tests.models.scheduler import FrozenLoop

EXAMPLES, RULES = 25, 30


@pytest.fixture
def model(loop: FrozenLoop, server: Server) -> type[InboxModel]:
    loop.run_until_complete(server.look(INSTRUMENTS))
    return type("Bound", (InboxModel,), {"loop": loop, "outside": server})


def test_every_event_has_one_effect_or_is_dead_once(model: type[InboxModel]) -> None:
    play(model, budget(EXAMPLES, RULES))


class AcknowledgesFirst(Inbox):
    """Acknowledges an event that is not safe."""

    async def consume(self, message: Message) -> None:
        try:
            await super().consume(message)
        except OutsideError:
            return


class SelectsBeforeItInserts(Inbox):
    """Selects the row first and inserts it afterwards, so that two deliveries find none."""

    async def _mark_done(self, tx: Tx, event: Envelope, row: ParkedRow | None) -> bool:
        if row is not None:
            return await super()._mark_done(tx, event, row)
        key = {"consumer": CONSUMER, "source": event.source, "id": event.id}
        if await tx.row(sql("SELECT FROM inbox WHERE consumer = :consumer AND source = :source AND id = :id"), **key):
            return False
        await tx.run(INSERT_DONE, **key, tenant=event.tenantid, type=event.type)
        return True


class MarksDoneInAnotherTransaction(Inbox):
    """Writes the row in a transaction of its own, before the effect's transaction ends."""

    def __init__(self, database: Database, *others: object) -> None:
        super().__init__(database, *others)  # type: ignore[arg-type]  # handed on as they came
        self._own_database = database

    async def _mark_done(self, _: Tx, event: Envelope, row: ParkedRow | None) -> bool:
        async with self._own_database.transaction() as own:
            return await super()._mark_done(own, event, row)


class TakesAFailureForADuplicate(Inbox):
    """Takes a failed statement for the answer that the event has its row."""

    async def _mark_done(self, tx: Tx, event: Envelope, row: ParkedRow | None) -> bool:
        try:
            return await super()._mark_done(tx, event, row)
        except Exception:  # noqa: BLE001 - the fault
            return False


class RetriesWhatIsNotParked(Inbox):
    """Reacts to a parked event again although its row is not parked any more."""

    async def _mark_done(self, tx: Tx, event: Envelope, row: ParkedRow | None) -> bool:
        await super()._mark_done(tx, event, row)
        return True


class LosesTheBytes(Inbox):
    """Parks an event without its data."""

    async def _park(self, delivery: Delivery, parked: Parked) -> None:
        await super()._park(replace(delivery, message=replace(delivery.message, data=b"")), parked)


FAULTS = [
    (AcknowledgesFirst, "was acknowledged and there is no row"),
    (SelectsBeforeItInserts, "effects"),
    (MarksDoneInAnotherTransaction, "effects"),
    (TakesAFailureForADuplicate, "was acknowledged and there is no row"),
    (RetriesWhatIsNotParked, "effects"),
    (LosesTheBytes, "has lost its bytes"),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("fault", "why"), FAULTS)
def test_planted_fault_is_found(model: type[InboxModel], fault: type[Inbox], why: str) -> None:
    mutant = type("Mutant", (model,), {"inbox": fault})
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found(mutant, budget(EXAMPLES, RULES, prove=True)))

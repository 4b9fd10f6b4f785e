"""The inbox makes every event count once, or die once, however it comes; each planted fault is found."""

from datetime import timedelta

import pytest

from durable_work.inbox import SEEN, Inbox
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


def test_every_event_counts_once_or_dies_once(model: type[InboxModel]) -> None:
    play(model, budget(EXAMPLES, RULES))


class AcknowledgesFirst(Inbox):
    """Says that an event is safe while it is not."""

    async def consume(self, message: Message) -> None:
        try:
            await super().consume(message)
        except OutsideError:
            return


class LooksBeforeItWrites(Inbox):
    """Asks whether an event was seen, and writes that it was when it is done."""

    async def _first_time(self, tx: Tx, event: Envelope, *, parked: bool) -> bool:
        if parked:
            return await super()._first_time(tx, event, parked=parked)
        key = {"consumer": CONSUMER, "source": event.source, "id": event.id}
        if await tx.row(sql("SELECT FROM inbox WHERE consumer = :consumer AND source = :source AND id = :id"), **key):
            return False
        await tx.run(SEEN, **key, tenant=event.tenantid, type=event.type)
        return True


class RemembersApart(Inbox):
    """Writes the row in a transaction of its own, before the effect's."""

    def __init__(self, database: Database, *others: object) -> None:
        super().__init__(database, *others)  # type: ignore[arg-type]  # handed on as they came
        self._apart = database

    async def _first_time(self, _: Tx, event: Envelope, *, parked: bool) -> bool:
        async with self._apart.transaction() as own:
            return await super()._first_time(own, event, parked=parked)


class TakesDoubtForSeen(Inbox):
    """Takes a failure to ask for an answer."""

    async def _first_time(self, tx: Tx, event: Envelope, *, parked: bool) -> bool:
        try:
            return await super()._first_time(tx, event, parked=parked)
        except Exception:  # noqa: BLE001 - the fault
            return False


class RetriesWithoutLooking(Inbox):
    """Applies a parked event again without seeing whether it is parked still."""

    async def _first_time(self, tx: Tx, event: Envelope, *, parked: bool) -> bool:
        await super()._first_time(tx, event, parked=parked)
        return True


class LosesTheBytes(Inbox):
    """Parks an event without what came."""

    async def _keep(self, message: Message, *args: str, pause: timedelta = timedelta(0), **more: object) -> bool:
        empty = Message(message.topic, message.key, message.attributes, b"", message.origin)
        return await super()._keep(empty, *args, pause=pause, **more)  # type: ignore[arg-type]  # handed on as they came


FAULTS = [
    (AcknowledgesFirst, "was acknowledged and there is no row"),
    (LooksBeforeItWrites, "effects"),
    (RemembersApart, "effects"),
    (TakesDoubtForSeen, "was acknowledged and there is no row"),
    (RetriesWithoutLooking, "effects"),
    (LosesTheBytes, "has lost its bytes"),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("fault", "why"), FAULTS)
def test_planted_fault_is_found(model: type[InboxModel], fault: type[Inbox], why: str) -> None:
    mutant = type("Mutant", (model,), {"inbox": fault})
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found(mutant, budget(EXAMPLES, RULES, prove=True)))

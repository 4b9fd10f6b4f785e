"""The outbox keeps its promises whatever is lost and whichever process dies; each planted fault is found."""

from collections.abc import Sequence

import pytest

from durable_work.outbox import MARK_DEAD, Outbox
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent, Unconfirmed
from shared_clients.postgres import Tx, sql
from shared_models.envelope import Envelope
from tests.models.database import Server
from tests.models.machine import budget, found, play
from tests.models.outboxes import INSTRUMENTS, OutboxModel
from tests.models.scheduler import FrozenLoop

EXAMPLES, RULES = 40, 30


@pytest.fixture
def model(loop: FrozenLoop, server: Server) -> type[OutboxModel]:
    loop.run_until_complete(server.look(INSTRUMENTS))
    return type("Bound", (OutboxModel,), {"loop": loop, "outside": server})


def test_every_committed_event_is_published_and_no_other(model: type[OutboxModel]) -> None:
    play(model, budget(EXAMPLES, RULES))


class DeletesFirst(Outbox):
    async def _send(self, message: Message) -> bool:
        await self._delete([message.attributes["id"]])
        return await super()._send(message)


class TakesNoAnswerForSafe(Outbox):
    async def _send(self, message: Message) -> bool:
        try:
            await self._bus.publish(message)
        except Unconfirmed:
            await self._published_ids.put(message.attributes["id"])
        except Permanent as error:
            await self._mark_dead(message, str(error))
        else:
            await self._published_ids.put(message.attributes["id"])
        return True


class PublishesBeforeTheCommit(Outbox):
    async def publish(self, tx: Tx, event: Envelope) -> None:
        await super().publish(tx, event)
        self.hand_over(Message("t", "k", event.attributes(), event.data))


class MarksDeadInTwoSteps(Outbox):
    async def _mark_dead(self, message: Message, error: str) -> None:
        async with self._database.autocommit() as tx:
            await tx.run(MARK_DEAD, id=message.attributes["id"], error=error)
        async with self._database.transaction() as tx:
            if self._on_dead is not None:
                await self._on_dead(tx, Envelope.parse(message.attributes, message.data), error)


class MarksAnyFailureDead(Outbox):
    async def _send(self, message: Message) -> bool:
        try:
            await self._bus.publish(message)
        except (Unconfirmed, Permanent) as error:
            await self._mark_dead(message, str(error))
        else:
            await self._published_ids.put(message.attributes["id"])
        return True


class NeverSweeps(Outbox):
    async def sweep(self) -> int:
        return 0


class DeletesTheDead(Outbox):
    async def _delete(self, ids: Sequence[str]) -> None:
        await super()._delete(ids)
        async with self._database.autocommit() as tx:
            await tx.run(sql("DELETE FROM outbox WHERE state = 'dead'"))


FAULTS = [
    (DeletesFirst, "went before its event was safe"),
    (TakesNoAnswerForSafe, "went before its event was safe"),
    (PublishesBeforeTheCommit, "was published before its transaction was durable"),
    (MarksDeadInTwoSteps, "on_dead ran"),
    (MarksAnyFailureDead, "is dead and could have been published"),
    (NeverSweeps, "are left unpublished"),
    (DeletesTheDead, "went before its event was safe|dead rows are gone"),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("fault", "why"), FAULTS)
def test_planted_fault_is_found(model: type[OutboxModel], fault: type[Outbox], why: str) -> None:
    mutant = type("Mutant", (model,), {"outbox": fault})
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found(mutant, budget(EXAMPLES, RULES, prove=True)))

"""The inbox as a model: deliveries of the same events to several processes at once, late, again and never.

What has to hold: an event has its effect once or, if it cannot have one, is dead once, with its bytes; nothing is
acknowledged without effect, parked row or dead row; what is done or dead stays so; what is parked ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from durable_work.inbox import Inbox, Reaction
from durable_work.outbox import message_of
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent, Transient
from shared_clients.postgres import Tx, sql
from shared_models.catalog import EVENTS, RUN_CHANGED
from shared_models.envelope import Envelope, EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import RunChanged, Status
from tests.models.database import Server, database_of
from tests.models.machine import Model, unless_away
from tests.models.scheduler import Fate, Process, must

SEATS = 3
SOME_SEATS = st.lists(st.integers(0, SEATS - 1), min_size=1, max_size=4)
CONSUMER = "request-manager"
TABLES = ("inbox", "model_effects", "model_deaths")
INSTRUMENTS = """
    CREATE TABLE IF NOT EXISTS model_effects (id text);
    CREATE TABLE IF NOT EXISTS model_deaths (id text)
"""
ACT = sql("INSERT INTO model_effects VALUES (:id)")
DIE = sql("INSERT INTO model_deaths VALUES (:id)")
LOOK = """
    SELECT i.id, i.state, i.data, i.attributes,
           (SELECT count(*) FROM agent_service.model_effects e WHERE e.id = i.id) AS effects,
           (SELECT count(*) FROM agent_service.model_deaths d WHERE d.id = i.id) AS deaths
    FROM agent_service.inbox i
"""


class Kind(StrEnum):
    GOOD = "good"
    BUSY = "busy"  # fails a few times as something outside would
    BUGGY = "buggy"  # fails whenever it is tried
    REFUSED = "refused"  # fails for good when it is tried
    FOREIGN = "foreign"  # written by a service that may not
    MALFORMED = "malformed"  # no event at all
    NEWER = "newer"  # of a version that this release does not read
    NUL = "nul"  # an id that Postgres cannot hold, and a bug on top


@dataclass(eq=False)
class Sent:
    """A message on the bus: it comes until it is acknowledged, and sometimes after that."""

    kind: Kind
    message: Message
    fails: int = 0
    acknowledged: bool = False

    @property
    def id(self) -> str:
        """The row's."""
        return self.message.attributes.get("id", "").replace("\x00", "") or self.message.origin


def message(kind: Kind, number: int) -> Message:
    context = EventContext(new_id(), new_id(), "acme", turn=1, expires=datetime(2040, 1, 1, tzinfo=UTC))
    sent = message_of(new_event("agent-service", RUN_CHANGED, RunChanged(status=Status.RUNNING, epoch=number), context))
    attributes = dict(sent.attributes)
    if kind is Kind.FOREIGN:
        attributes["source"] = "/flotilla/somebody-else"
    elif kind is Kind.MALFORMED:
        del attributes["tenantid"]
    elif kind is Kind.NEWER:
        attributes["type"] = attributes["type"].replace(".v1", ".v9")
    elif kind is Kind.NUL:
        attributes["id"] = "\x00"
    return Message(sent.topic, sent.key, attributes, sent.data, f"kafka:t/0@{number}")


@dataclass
class Effects:
    """What the consumer does about events: a row for each, after something that may fail outside."""

    model: "InboxModel"
    sent: dict[str, Sent] = field(default_factory=dict)

    async def react(self, tx: Tx, event: Envelope, _: object) -> None:
        await tx.run(ACT, id=event.id.replace("\x00", ""))
        sent = next(one for one in self.sent.values() if one.message.attributes.get("id") == event.id)
        if await self.model.scheduler.gate("reaction", may_fail=sent.kind is Kind.GOOD) is Fate.LOST:
            raise Transient("busy")
        if sent.kind is Kind.BUSY and sent.fails > 0:
            sent.fails -= 1
            raise Transient("still busy")
        if sent.kind in {Kind.BUGGY, Kind.NUL}:
            raise ValueError("a bug, with a \x00 in what it says")
        if sent.kind is Kind.REFUSED:
            raise Permanent("never")

    async def on_dead(self, tx: Tx, event: Envelope, _: str) -> None:
        await tx.run(DIE, id=event.id)

    def reactions(self) -> Sequence[Reaction]:
        return [Reaction(one, self.react, self.on_dead) for one in EVENTS.values() if CONSUMER in one.consumers]


class InboxModel(Model):
    name = "inbox"
    outside: ClassVar[Server]
    inbox: ClassVar[type[Inbox]] = Inbox

    @initialize()
    def open(self) -> None:
        self.now(self.outside.reset(*TABLES))
        self.scheduler.on_tick = self.outside.tick
        self.effects = Effects(self)
        self.rows: dict[str, str] = {}
        self.seats: list[tuple[Process, Inbox] | None] = [None] * SEATS

    @rule(kinds=st.lists(st.sampled_from(Kind), min_size=1, max_size=3), fails=st.integers(0, 3), seats=SOME_SEATS)
    def send(self, kinds: list[Kind], fails: int, seats: list[int]) -> None:
        for kind in kinds:
            sent = Sent(kind, message(kind, len(self.effects.sent) + 1), fails)
            self.effects.sent[sent.message.origin] = sent
            for seat in seats:
                self._deliver(sent, seat)

    @precondition(lambda self: self.effects.sent)
    @rule(number=st.integers(0, 100), seats=SOME_SEATS)
    def deliver_again(self, number: int, seats: list[int]) -> None:
        sent = list(self.effects.sent.values())
        for seat in seats:
            self._deliver(sent[number % len(sent)], seat)

    @rule(seats=SOME_SEATS)
    def retry(self, seats: list[int]) -> None:
        for seat in seats:
            process, inbox = self._seat(seat)
            self.start(process, unless_away(inbox.retry()))

    @rule(seconds=st.sampled_from([1.0, 31.0, 301.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now(self.scheduler.tick(seconds))

    @invariant()
    def effects_and_deaths_agree_with_the_rows(self) -> None:
        self.now(self._check())

    async def finish(self) -> None:
        await self.scheduler.quieten()
        process, inbox = self._seat(0)
        for sent in self.effects.sent.values():
            self.scheduler.spawn(process, self._handle(inbox, sent))
            await self.scheduler.quieten()
        for number in range(100):
            await self.scheduler.tick(301.0 if number % 25 else 90_000.0)
            self.scheduler.spawn(process, inbox.retry())
            await self.scheduler.quieten()
            await self._check()
            if "parked" not in self.rows.values():
                break
        for sent in self.effects.sent.values():
            state = self.rows.get(sent.id)
            expected = "done" if sent.kind in {Kind.GOOD, Kind.BUSY} else "dead"
            must(state == expected, f"{sent.kind} event {sent.id} ended {state}, and had to be {expected}")

    async def _check(self) -> None:
        rows = {row["id"]: row for row in await self.outside.rows(LOOK)}
        for sent in self.effects.sent.values():
            row, before = rows.get(sent.id), self.rows.get(sent.id)
            if row is None:
                must(not sent.acknowledged, f"{sent.kind} event {sent.id} was acknowledged and there is no row")
                must(before is None, f"the {before} row of {sent.id} has gone")
                continue
            state = row["state"]
            must(before in {None, "parked", state}, f"{sent.id} was {before} and is {state}")
            must(row["effects"] == int(state == "done"), f"{sent.id} is {state} and had {row['effects']} effects")
            owed = int(state == "dead" and sent.kind in {Kind.BUGGY, Kind.REFUSED, Kind.FOREIGN})
            must(row["deaths"] == owed, f"{sent.kind} event {sent.id} is {state}, its death was told {row['deaths']}x")
            must(state == "done" or row["data"] == sent.message.data, f"the {state} {sent.id} has lost its bytes")
            self.rows[sent.id] = state

    def _deliver(self, sent: Sent, seat: int) -> None:
        process, inbox = self._seat(seat)
        self.start(process, self._handle(inbox, sent))

    async def _handle(self, inbox: Inbox, sent: Sent) -> None:
        try:
            await inbox.consume(sent.message)
        except Transient:
            return
        await self.scheduler.gate("acknowledgement", may_fail=False)
        sent.acknowledged = True

    def _seat(self, number: int) -> tuple[Process, Inbox]:
        taken = self.seats[number]
        if taken is None or taken[0].dead:
            process = self.born("consumer")
            taken = process, self.inbox(database_of(self.outside, self.scheduler), CONSUMER, self.effects.reactions())
            self.seats[number] = taken
        return taken

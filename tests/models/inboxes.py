"""The inbox as a model: deliveries of the same events to several processes at once, late, again and never.

These invariants hold. An event has its effect once or, where it cannot have one, is marked dead once and keeps its
bytes. A message is acknowledged only after its effect, its parked row or its dead row is committed. A done or dead row
stays as it is. A parked row ends as done or dead.
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
from shared_clients.errors import Permanent, Transient, Unconfirmed
from shared_clients.postgres import Tx, sql
from shared_models.catalog import EVENTS, RUN_CHANGED
from shared_models.envelope import Envelope, EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import RunChanged, Status
from tests.models.database import Server, database_of
from tests.models.machine import Model, unless_away
from tests.models.scheduler import Fate, Process, must

PROCESSES = 3
SOME_PROCESSES = st.lists(st.integers(0, PROCESSES - 1), min_size=1, max_size=4)
CONSUMER = "request-manager"
TABLES = ("inbox", "model_effects", "model_deaths")
INSTRUMENTS = """
    CREATE TABLE IF NOT EXISTS model_effects (id text);
    CREATE TABLE IF NOT EXISTS model_deaths (id text)
"""
INSERT_EFFECT = sql("INSERT INTO model_effects VALUES (:id)")
INSERT_DEATH = sql("INSERT INTO model_deaths VALUES (:id)")
LIST_ROWS = """
    SELECT i.id, i.state, i.data, i.attributes,
           (SELECT count(*) FROM agent_service.model_effects e WHERE e.id = i.id) AS effects,
           (SELECT count(*) FROM agent_service.model_deaths d WHERE d.id = i.id) AS deaths
    FROM agent_service.inbox i
"""


class Kind(StrEnum):
    GOOD = "good"
    BUSY = "busy"  # fails a few times, as an outage would
    BUGGY = "buggy"  # raises a bug at every try
    REFUSED = "refused"  # raises Permanent
    FOREIGN = "foreign"  # written by a service that may not write this type
    MALFORMED = "malformed"  # not a valid event
    NEWER = "newer"  # a version that this release does not read
    NUL = "nul"  # an id that Postgres cannot store, and a bug in its handling


@dataclass(eq=False)
class SentMessage:
    """A message that the bus delivers until it is acknowledged, and sometimes again after that."""

    kind: Kind
    message: Message
    fails: int = 0
    acknowledged: bool = False

    @property
    def id(self) -> str:
        """The id in the key of the inbox row."""
        name = self.message.attributes.get("id", "").replace("\x00", "") or self.message.origin
        return f"untrusted:{name}" if self.kind is Kind.FOREIGN else name


def message(kind: Kind, number: int) -> Message:
    context = EventContext(new_id(), new_id(), "acme", turn=1, expires=datetime(2040, 1, 1, tzinfo=UTC))
    sent = message_of(new_event("agent-service", RUN_CHANGED, RunChanged(status=Status.RUNNING, epoch=number), context))
    attributes = dict(sent.attributes)
    if kind is Kind.FOREIGN:
        attributes["source"] = "/flotilla/another-service"
    elif kind is Kind.MALFORMED:
        del attributes["tenantid"]
    elif kind is Kind.NEWER:
        attributes["type"] = attributes["type"].replace(".v1", ".v9")
    elif kind is Kind.NUL:
        attributes["id"] = "\x00"
    return Message(sent.topic, sent.key, attributes, sent.data, f"kafka:t/0@{number}")


@dataclass
class Consumer:
    """A consumer whose effect is a row for each event; its handler fails by the event's kind."""

    model: "InboxModel"
    sent: dict[str, SentMessage] = field(default_factory=dict)

    async def react(self, tx: Tx, event: Envelope, _: object) -> None:
        await tx.run(INSERT_EFFECT, id=event.id.replace("\x00", ""))
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
        await tx.run(INSERT_DEATH, id=event.id)

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
        self.consumer = Consumer(self)
        self.rows: dict[str, str] = {}
        self.running: list[tuple[Process, Inbox] | None] = [None] * PROCESSES

    @rule(
        kinds=st.lists(st.sampled_from(Kind), min_size=1, max_size=3), fails=st.integers(0, 3), processes=SOME_PROCESSES
    )
    def send(self, kinds: list[Kind], fails: int, processes: list[int]) -> None:
        for kind in kinds:
            sent = SentMessage(kind, message(kind, len(self.consumer.sent) + 1), fails)
            self.consumer.sent[sent.message.origin] = sent
            for number in processes:
                self._deliver(sent, number)

    @precondition(lambda self: self.consumer.sent)
    @rule(index=st.integers(0, 100), processes=SOME_PROCESSES)
    def deliver_again(self, index: int, processes: list[int]) -> None:
        sent = list(self.consumer.sent.values())
        for number in processes:
            self._deliver(sent[index % len(sent)], number)

    @rule(processes=SOME_PROCESSES)
    def retry(self, processes: list[int]) -> None:
        for number in processes:
            process, inbox = self._process(number)
            self.start(process, unless_away(inbox.retry()))

    @rule(seconds=st.sampled_from([1.0, 31.0, 301.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now(self.scheduler.tick(seconds))

    @invariant()
    def effects_and_deaths_agree_with_the_rows(self) -> None:
        self.now(self._check())

    async def finish(self) -> None:
        await self.scheduler.quieten()
        process, inbox = self._process(0)
        for sent in self.consumer.sent.values():
            self.scheduler.spawn(process, self._handle(inbox, sent))
            await self.scheduler.quieten()
        for number in range(100):
            await self.scheduler.tick(301.0 if number % 25 else 90_000.0)
            self.scheduler.spawn(process, inbox.retry())
            await self.scheduler.quieten()
            await self._check()
            if "parked" not in self.rows.values():
                break
        for sent in self.consumer.sent.values():
            state = self.rows.get(sent.id)
            expected = "done" if sent.kind in {Kind.GOOD, Kind.BUSY} else "dead"
            must(state == expected, f"{sent.kind} event {sent.id} ended as {state} instead of {expected}")

    async def _check(self) -> None:
        rows = {row["id"]: row for row in await self.outside.rows(LIST_ROWS)}
        for sent in self.consumer.sent.values():
            row, before = rows.get(sent.id), self.rows.get(sent.id)
            if row is None:
                must(not sent.acknowledged, f"{sent.kind} event {sent.id} was acknowledged and there is no row")
                must(before is None, f"the {before} row of {sent.id} is gone")
                continue
            state = row["state"]
            must(before in {None, "parked", state}, f"{sent.id} was {before} and is {state}")
            must(row["effects"] == int(state == "done"), f"{sent.id} is {state} and had {row['effects']} effects")
            expected_deaths = int(state == "dead" and sent.kind in {Kind.BUGGY, Kind.REFUSED})
            must(
                row["deaths"] == expected_deaths,
                f"{sent.kind} event {sent.id} is {state}, on_dead ran {row['deaths']}x",
            )
            must(state == "done" or row["data"] == sent.message.data, f"the {state} {sent.id} has lost its bytes")
            self.rows[sent.id] = state

    def _deliver(self, sent: SentMessage, number: int) -> None:
        process, inbox = self._process(number)
        self.start(process, self._handle(inbox, sent))

    async def _handle(self, inbox: Inbox, sent: SentMessage) -> None:
        try:
            await inbox.consume(sent.message)
        except Unconfirmed:
            return
        await self.scheduler.gate("acknowledgement", may_fail=False)
        sent.acknowledged = True

    def _process(self, number: int) -> tuple[Process, Inbox]:
        running = self.running[number]
        if running is None or running[0].dead:
            process = self.born("consumer")
            database = database_of(self.outside, self.scheduler)
            running = process, self.inbox(database, CONSUMER, self.consumer.reactions())
            self.running[number] = running
        return running

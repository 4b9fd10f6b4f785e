"""The inbox on real Postgres: once in effect however often it comes, parked with its bytes, dead with its reason."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from durable_work.inbox import MAX_ATTEMPTS, Inbox, Reaction
from durable_work.outbox import message_of
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent, Transient
from shared_clients.postgres import Database, Tx, sql
from shared_models.catalog import RESPONSE_FAILED, RESPONSE_READY, RUN_CHANGED
from shared_models.envelope import Envelope, EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import RunChanged, Status


class Counter:
    """A consumer whose effect is a row for each event; it raises the errors in `faults`."""

    def __init__(self, database: Database) -> None:
        self.faults: list[Exception] = []
        self.marked_dead: list[str] = []
        self.inbox = Inbox(
            database,
            "request-manager",
            [
                Reaction(RUN_CHANGED, self.react, on_dead=self.on_dead),
                Reaction(RESPONSE_READY, self.react),
                Reaction(RESPONSE_FAILED, self.react),
            ],
        )

    async def react(self, tx: Tx, event: Envelope, change: RunChanged) -> None:
        await tx.run(sql("INSERT INTO effects VALUES (:id, :epoch)"), id=event.id, epoch=change.epoch)
        if self.faults:
            raise self.faults.pop(0)

    async def on_dead(self, tx: Tx, event: Envelope, error: str) -> None:
        assert await tx.rows(sql("SELECT 1 FROM inbox WHERE state = 'dead'"))
        self.marked_dead.append(f"{event.id} {error}")


@pytest.fixture
async def counter(database: Database) -> Counter:
    async with database.autocommit() as tx:
        await tx.run(sql("CREATE TABLE effects (id text, epoch bigint)"))
    return Counter(database)


def message(**changes: str | None) -> Message:
    context = EventContext(new_id(), new_id(), "acme", turn=1, expires=datetime.now(UTC))
    sent = message_of(new_event("agent-service", RUN_CHANGED, RunChanged(status=Status.RUNNING, epoch=7), context))
    attributes = {key: value for key, value in {**sent.attributes, **changes}.items() if value is not None}
    return Message(sent.topic, sent.key, attributes, sent.data, "kafka:t/0@1")


def with_data(data: bytes) -> Message:
    sent = message()
    return Message(sent.topic, sent.key, sent.attributes, data, sent.origin)


async def effects(database: Database) -> int:
    async with database.autocommit() as tx:
        return len(await tx.rows(sql("SELECT id FROM effects")))


async def states(database: Database) -> Sequence[tuple[str, str | None]]:
    async with database.autocommit() as tx:
        return [(r["state"], r["error"]) for r in await tx.rows(sql("SELECT state, error FROM inbox ORDER BY seen_at"))]


async def due(database: Database) -> None:
    async with database.autocommit() as tx:
        await tx.run(sql("UPDATE inbox SET next_attempt_at = now() WHERE state = 'parked'"))


async def test_event_that_comes_three_times_at_once_has_one_effect(database: Database, counter: Counter) -> None:
    sent = message()
    await asyncio.gather(*(counter.inbox.consume(sent) for _ in range(3)))
    await counter.inbox.consume(sent)
    assert await effects(database) == 1
    assert await states(database) == [("done", None)]


async def test_transient_failure_is_parked_and_tried_again_from_the_stored_bytes(
    database: Database, counter: Counter
) -> None:
    counter.faults = [Transient("busy"), Transient("still busy")]
    sent = message()
    await counter.inbox.consume(sent)
    assert await effects(database) == 0, "the effect went with its transaction"
    assert [state for state, _ in await states(database)] == ["parked"]
    await counter.inbox.consume(sent)
    assert await effects(database) == 0, "the bus cannot hurry it"
    for _ in range(2):
        await due(database)
        assert await counter.inbox.retry() == 1
    assert await effects(database) == 1
    assert await states(database) == [("done", None)]
    assert await counter.inbox.retry() == 0


async def test_failure_that_does_not_end_is_dead_after_counted_tries_and_frees_what_waits(
    database: Database, counter: Counter
) -> None:
    counter.faults = [ValueError("a bug")] * (MAX_ATTEMPTS + 1)
    sent = message()
    await counter.inbox.consume(sent)
    for _ in range(MAX_ATTEMPTS):
        await due(database)
        await counter.inbox.retry()
    assert await states(database) == [("dead", "ValueError: a bug")]
    assert counter.marked_dead == [f"{sent.attributes['id']} ValueError: a bug"]
    assert await effects(database) == 0
    async with database.autocommit() as tx:
        kept = await tx.row(sql("SELECT data, attributes, attempts FROM inbox"))
    assert kept is not None
    assert kept["data"] == sent.data
    assert kept["attributes"] == dict(sent.attributes)
    assert kept["attempts"] == MAX_ATTEMPTS


async def test_permanent_failure_is_dead_at_once(database: Database, counter: Counter) -> None:
    counter.faults = [Permanent("never")]
    await counter.inbox.consume(message())
    assert await states(database) == [("dead", "never")]
    assert len(counter.marked_dead) == 1


@pytest.mark.parametrize(
    "source",
    [
        "/flotilla/api-gateway",
        "agent-service",
        "flotilla/agent-service",
        "/flotilla//flotilla/agent-service",
        "/flotilla/agent-service/",
        "/flotilla/Agent-service",
        "https://x/flotilla/agent-service",
    ],
)
async def test_event_of_a_source_that_may_not_write_it_changes_nothing_and_is_kept(
    database: Database, counter: Counter, source: str
) -> None:
    genuine = message()
    forged = Message(genuine.topic, genuine.key, {**genuine.attributes, "source": source}, genuine.data, "kafka:t/0@2")
    for _ in range(3):
        await counter.inbox.consume(forged)
    async with database.autocommit() as tx:
        kept = await tx.rows(sql("SELECT state, tenant, data, attributes FROM inbox"))
    assert [dict(row) for row in kept] == [
        {"state": "dead", "tenant": "", "data": forged.data, "attributes": dict(forged.attributes)}
    ]
    assert counter.marked_dead == []
    assert await effects(database) == 0
    await counter.inbox.consume(genuine)
    assert await effects(database) == 1, "the forged copy does not stand in the way of the event"


async def test_parked_event_whose_source_is_refused_by_a_later_release_leaves_its_tenant(
    database: Database, counter: Counter
) -> None:
    await counter.inbox.consume(message(type="flotilla.run.changed.v2", source="/flotilla/api-gateway"))
    assert [state for state, _ in await states(database)] == ["parked"]
    async with database.autocommit() as tx:
        await tx.run(sql("""UPDATE inbox SET attributes = attributes || '{"type": "flotilla.run.changed.v1"}'"""))
    await due(database)
    await counter.inbox.retry()
    async with database.autocommit() as tx:
        [row] = await tx.rows(sql("SELECT state, tenant, error FROM inbox"))
    assert (row["state"], row["tenant"]) == ("dead", "")
    assert "may not write" in row["error"]
    assert counter.marked_dead == []


async def test_event_that_two_processes_give_up_is_marked_dead_once(
    database: Database, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter.faults = [ValueError("a bug")] * 3
    await counter.inbox.consume(message())
    async with database.autocommit() as tx:
        await tx.run(sql("UPDATE inbox SET attempts = :all_but_one"), all_but_one=MAX_ATTEMPTS - 1)
    await due(database)
    transaction, begun = database.transaction, itertools.count(1)

    @asynccontextmanager
    async def overtaken() -> AsyncIterator[Tx]:
        if next(begun) == 2:  # the try has failed; before its event is dead, another process does all of it
            await due(database)
            assert await counter.inbox.retry() == 1
        async with transaction() as tx:
            yield tx

    monkeypatch.setattr(database, "transaction", overtaken)
    assert await counter.inbox.retry() == 1
    assert next(begun) == 5, "two tries, and two that gave up"
    assert await states(database) == [("dead", "ValueError: a bug")]
    assert len(counter.marked_dead) == 1


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        pytest.param(message(id=None), "id: Field required", id="no id"),
        pytest.param(message(specversion="0.3"), "specversion", id="another CloudEvents version"),
        pytest.param(message(correlationid="nonsense"), "correlationid", id="malformed attribute"),
        pytest.param(with_data(b"{"), "not as agreed", id="cut data"),
        pytest.param(with_data(b'{"epoch": 1}'), "status: Field required", id="data without a field"),
        pytest.param(with_data(b"x" * 300_000), "data", id="oversized"),
        pytest.param(message(source="/flotilla/api-gateway"), "may not write", id="a source that may not"),
        pytest.param(message(subject="a\x00b", correlationid="\x00"), "correlationid", id="a NUL character"),
    ],
)
async def test_poison_is_dead_at_once_with_its_reason_and_is_acknowledged(
    database: Database, counter: Counter, poison: Message, reason: str
) -> None:
    await counter.inbox.consume(poison)
    await counter.inbox.consume(poison)
    [(state, error)] = await states(database)
    assert state == "dead"
    assert reason in str(error)
    assert await effects(database) == 0


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(message(type="flotilla.run.changed.v2"), id="version"),
        pytest.param(with_data(b'{"status": "paused", "epoch": 1}'), id="member"),
    ],
)
async def test_event_of_a_later_release_waits_for_it(database: Database, counter: Counter, later: Message) -> None:
    await counter.inbox.consume(later)
    for _ in range(MAX_ATTEMPTS + 2):
        await due(database)
        await counter.inbox.retry()
    assert [state for state, _ in await states(database)] == ["parked"]
    async with database.autocommit() as tx:
        await tx.run(sql("UPDATE inbox SET seen_at = now() - interval '25 hours'"))
    await due(database)
    await counter.inbox.retry()
    assert [state for state, _ in await states(database)] == ["dead"]


async def test_unknown_type_is_acknowledged_and_forgotten(database: Database, counter: Counter) -> None:
    await counter.inbox.consume(message(type="somebody.elses.v1"))
    assert await states(database) == []


async def test_field_that_a_later_release_added_is_ignored(database: Database, counter: Counter) -> None:
    await counter.inbox.consume(with_data(b'{"status": "running", "epoch": 1, "mood": "good"}'))
    assert await effects(database) == 1


async def test_event_is_not_taken_for_seen_when_the_database_cannot_be_asked(
    database: Database, counter: Counter
) -> None:
    async with database.autocommit() as tx:
        await tx.run(sql("ALTER TABLE inbox RENAME TO away"))
    with pytest.raises(Exception, match="inbox"):
        await counter.inbox.consume(message())
    async with database.autocommit() as tx:
        await tx.run(sql("ALTER TABLE away RENAME TO inbox"))
    assert await states(database) == []


def test_consumer_that_forgets_an_event_of_the_catalogue_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="has to react to"):
        Inbox(database, "request-manager", [])

"""Dead letters on real Postgres are listed, read, replayed and discarded, never lost and never settled twice.

The outbox's bus is a fake that fails on demand.
"""

import asyncio
import base64
import random
from datetime import UTC, datetime
from uuid import UUID

import pytest

from durable_work.dead_letters import DeadLetters
from durable_work.inbox import Inbox, Reaction
from durable_work.outbox import Outbox, message_of
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent, Transient
from shared_clients.postgres import Database, Tx, sql
from shared_models.catalog import REQUEST_CANCELLED, REQUEST_CREATED
from shared_models.dead_letters import OPERATE, OPERATE_FLEET, DeadLetter, LetterQuery, Settled
from shared_models.envelope import MAX_DATA, Envelope, EventContext, new_event
from shared_models.ids import new_id
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal, RequestCancelled, RequestCreated
from tests.simulators.bus import ScriptedBus
from tests.simulators.rows import row, rows, run

AGENTS = "agent-service"


def operator(tenant: str = "acme", *scopes: str) -> Principal:
    held = frozenset({OPERATE, *scopes})
    return Principal(issuer="idp", subject="olga", tenant=tenant, credential="key-7", channel="api", scopes=held)


OLGA = operator()
FLEET = operator("acme", OPERATE_FLEET)
ANN = Principal(issuer="idp", subject="ann", tenant="acme", credential="key-1", channel="api")


class Agents:
    """A consumer whose effect is a row for each event; it raises the errors in `faults`."""

    def __init__(self, database: Database) -> None:
        self.faults: list[Exception] = []
        self.database = database
        self.inbox = Inbox(
            database, AGENTS, [Reaction(REQUEST_CREATED, self.react), Reaction(REQUEST_CANCELLED, self.react)]
        )
        self.letters = DeadLetters(database, AGENTS)

    async def react(self, tx: Tx, event: Envelope, _: RequestCreated | RequestCancelled) -> None:
        await tx.run(sql("INSERT INTO effects VALUES (:id)"), id=event.id)
        if self.faults:
            raise self.faults.pop(0)

    async def effects(self) -> int:
        return len(await rows(self.database, "SELECT id FROM effects"))

    async def dies(self, message: Message, why: str = "as scripted") -> DeadLetter:
        """Have an event die, and return its letter."""
        self.faults = [Permanent(why)]
        await self.inbox.consume(message)
        self.faults = []
        [letter] = [one for one in await self.all() if one.event_id == message.attributes["id"]]
        return letter

    async def all(self, who: Principal = FLEET, **wanted: object) -> list[DeadLetter]:
        return list(await self.letters.list(who, LetterQuery.model_validate(wanted)))

    async def retry(self) -> int:
        await run(self.database, "UPDATE inbox SET next_attempt_at = now() WHERE state = 'parked'")
        return await self.inbox.retry()


@pytest.fixture
async def agents(database: Database) -> Agents:
    await run(database, "CREATE TABLE effects (id text)")
    return Agents(database)


def cancelled(tenant: str = "acme", **changes: str | None) -> Message:
    context = EventContext(new_id(), new_id(), tenant, turn=1, expires=datetime.now(UTC))
    sent = message_of(new_event("request-manager", REQUEST_CANCELLED, RequestCancelled(principal=ANN), context))
    attributes = {key: value for key, value in {**sent.attributes, **changes}.items() if value is not None}
    return Message(sent.topic, sent.key, attributes, sent.data, f"kafka:t/0@{new_id()}")


def created() -> Message:
    context = EventContext(new_id(), new_id(), "acme", turn=1, expires=datetime.now(UTC))
    data = RequestCreated(content="What time is it?", principal=ANN)
    return message_of(new_event("request-manager", REQUEST_CREATED, data, context))


async def audited(database: Database) -> list[tuple[str, str]]:
    found = await rows(database, "SELECT action, subject FROM audit_entries ORDER BY at")
    return [(one["action"], one["subject"]) for one in found]


async def test_letter_has_the_event_and_the_reason_and_no_content(agents: Agents) -> None:
    message = cancelled()
    letter = await agents.dies(message, "no such thing")
    assert (letter.service, letter.box, letter.state) == (AGENTS, "inbox", "dead")
    assert letter.type == REQUEST_CANCELLED.name
    assert letter.source == "/flotilla/request-manager"
    assert letter.tenant == "acme"
    assert letter.subject == letter.correlation_id == message.attributes["correlationid"]
    assert letter.reason == "no such thing"
    assert (letter.attempts, letter.size, letter.malformed) == (1, len(message.data), False)
    assert letter.died_at is not None
    assert letter.first_seen <= letter.died_at
    assert letter.content is None
    assert await agents.letters.show(OLGA, letter.id, content=False) == letter
    assert await audited(agents.database) == []


async def test_content_is_shown_as_it_came_and_leaves_an_audit_entry(agents: Agents) -> None:
    message = cancelled()
    letter = await agents.dies(message)
    shown = await agents.letters.show(OLGA, letter.id, content=True)
    assert shown.content is not None
    assert base64.b64decode(shown.content.data_base64) == message.data
    assert shown.content.attributes == dict(message.attributes)
    assert await audited(agents.database) == [("dead_letter.read", letter.id)]


async def test_letter_that_is_replayed_twice_has_one_effect(agents: Agents) -> None:
    letter = await agents.dies(cancelled())
    replayed = Settled(id=letter.id, outcome="replayed")
    both = await asyncio.gather(*(agents.letters.replay(OLGA, letter.id, None) for _ in range(2)))
    assert both == [replayed, replayed]
    assert await agents.all() == []
    [parked] = await agents.all(state="parked")
    assert (parked.id, parked.attempts) == (letter.id, 0)
    assert await agents.retry() == 1
    assert await agents.effects() == 1
    assert await agents.letters.replay(OLGA, letter.id, None) == replayed
    assert await agents.retry() == 0
    assert await agents.effects() == 1
    assert await audited(agents.database) == [("dead_letter.replayed", letter.id)]


async def test_replay_whose_process_dies_leaves_the_letter_on_its_way(agents: Agents) -> None:
    message = cancelled()
    letter = await agents.dies(message)
    await agents.letters.replay(OLGA, letter.id, None)
    await agents.inbox.consume(message)
    assert await agents.effects() == 0, "the bus cannot hurry it"
    successor = Agents(agents.database)
    assert await successor.retry() == 1
    assert await agents.effects() == 1
    await agents.inbox.consume(message)
    assert await agents.effects() == 1


async def test_replay_that_does_not_commit_leaves_the_letter_dead(agents: Agents) -> None:
    letter = await agents.dies(cancelled())
    await run(agents.database, "ALTER TABLE audit_entries RENAME TO away")
    with pytest.raises(Exception, match="audit_entries"):
        await agents.letters.replay(OLGA, letter.id, None)
    await run(agents.database, "ALTER TABLE away RENAME TO audit_entries")
    assert [one.id for one in await agents.all()] == [letter.id]
    assert await agents.retry() == 0


async def test_letter_that_dies_again_is_dead_again_with_the_new_reason(agents: Agents) -> None:
    letter = await agents.dies(cancelled(), "the first reason")
    for reason in ("the second reason", "the third reason"):
        await agents.letters.replay(OLGA, letter.id, None)
        agents.faults = [Permanent(reason)]
        assert await agents.retry() == 1
        [again] = await agents.all()
        assert (again.id, again.reason) == (letter.id, reason)
        assert again.died_at is not None
        assert letter.died_at is not None
        assert again.died_at > letter.died_at
        assert again.first_seen == letter.first_seen
    assert await agents.effects() == 0


async def test_dead_request_stays_until_a_new_request_takes_its_place(agents: Agents) -> None:
    message = created()
    letter = await agents.dies(message)
    asks = await agents.letters.replay(OLGA, letter.id, None)
    old = UUID(message.attributes["correlationid"])
    assert asks == Settled(id=letter.id, outcome="needs_request", request_id=old)
    assert [one.id for one in await agents.all()] == [letter.id], "nothing has changed"
    fresh = new_id()
    for _ in range(2):
        done = await agents.letters.replay(OLGA, letter.id, fresh)
        assert done == Settled(id=letter.id, outcome="replayed", request_id=fresh)
    assert (await agents.letters.replay(OLGA, letter.id, None)).request_id == fresh
    assert await agents.all() == []
    assert await agents.retry() == 0, "the old event never comes back"
    await agents.inbox.consume(message)
    assert await agents.effects() == 0
    assert await audited(agents.database) == [("dead_letter.replayed", letter.id)]


async def test_discarded_letter_is_gone_and_keeps_the_person_and_the_reason(agents: Agents) -> None:
    message = cancelled()
    letter = await agents.dies(message)
    done = Settled(id=letter.id, outcome="discarded")
    assert [await agents.letters.discard(OLGA, letter.id, "a test of ours") for _ in range(2)] == [done, done]
    assert await agents.all() == []
    with pytest.raises(Problem, match=r"discarded at .* by idp\|olga \(a test of ours\)") as caught:
        await agents.letters.replay(OLGA, letter.id, None)
    assert caught.value.kind is Problems.NOT_DEAD.value
    await agents.inbox.consume(message)
    assert await agents.effects() == 0, "it is remembered as seen"
    assert await rows(agents.database, "SELECT data FROM inbox") == [{"data": None}]
    entry = await row(agents.database, "SELECT action, tenant, person, details->>'reason' AS why FROM audit_entries")
    assert entry == {
        "action": "dead_letter.discarded",
        "tenant": "acme",
        "person": "idp|olga",
        "why": "a test of ours",
    }


async def test_letter_that_was_replayed_cannot_be_discarded(agents: Agents) -> None:
    letter = await agents.dies(cancelled())
    await agents.letters.replay(OLGA, letter.id, None)
    with pytest.raises(Problem, match="The letter was replayed at") as caught:
        await agents.letters.discard(OLGA, letter.id, "too late")
    assert caught.value.kind is Problems.NOT_DEAD.value
    assert await agents.retry() == 1
    assert await agents.effects() == 1


async def test_replay_and_discard_at_once_do_one_of_the_two(agents: Agents) -> None:
    letters = [await agents.dies(cancelled()) for _ in range(8)]
    for letter in letters:
        both = await asyncio.gather(
            agents.letters.replay(OLGA, letter.id, None),
            agents.letters.discard(OLGA, letter.id, "racing"),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in both) == ["Problem", "Settled"]
    replayed = await rows(agents.database, "SELECT 1 AS one FROM settled_letters WHERE outcome = 'replayed'")
    assert await agents.retry() == len(replayed) == await agents.effects()
    assert len(await audited(agents.database)) == len(letters)


async def test_other_tenants_see_and_touch_nothing(agents: Agents) -> None:
    letter = await agents.dies(cancelled())
    stranger = operator("globex", OPERATE_FLEET)
    assert await agents.all(stranger) == []
    attempts = (
        agents.letters.show(stranger, letter.id, content=True),
        agents.letters.replay(stranger, letter.id, None),
        agents.letters.replay(stranger, letter.id, new_id()),
        agents.letters.discard(stranger, letter.id, "not mine"),
    )
    for outcome in await asyncio.gather(*attempts, return_exceptions=True):
        assert isinstance(outcome, Problem)
        assert outcome.kind is Problems.UNKNOWN_DEAD_LETTER.value
    assert [one.id for one in await agents.all(OLGA)] == [letter.id]
    await agents.letters.discard(OLGA, letter.id, "mine")
    with pytest.raises(Problem, match="There is no dead letter"):
        await agents.letters.discard(stranger, letter.id, "what new_request of it is not theirs to know either")


@pytest.mark.parametrize(
    "letter",
    [
        "nonsense",
        "",
        "agent-service.in.zz",
        f"agent-service.in.{'0' * 32}",
        f"agent-service.out.{'0' * 32}",
        f"request-manager.in.{'0' * 32}",
        f"agent-service.in.{'0' * 32}\n",
    ],
)
async def test_unknown_id_is_refused(agents: Agents, letter: str) -> None:
    attempts = (
        agents.letters.show(FLEET, letter, content=False),
        agents.letters.replay(FLEET, letter, None),
        agents.letters.discard(FLEET, letter, "why not"),
    )
    for outcome in await asyncio.gather(*attempts, return_exceptions=True):
        assert isinstance(outcome, Problem)
        assert outcome.kind is Problems.UNKNOWN_DEAD_LETTER.value


def large() -> Message:
    sent = cancelled()
    return Message(sent.topic, sent.key, sent.attributes, b" " * (MAX_DATA + 1), sent.origin)


@pytest.mark.parametrize(
    ("poison", "without_tenant"),
    [
        pytest.param(cancelled(id=None), True, id="no id"),
        pytest.param(cancelled(tenantid=None), True, id="no tenant"),
        pytest.param(cancelled(correlationid="nonsense"), True, id="malformed attribute"),
        pytest.param(cancelled(correlationid=f"{new_id()}\x00"), True, id="a NUL, which is not stored"),
        pytest.param(large(), True, id="oversized"),
        pytest.param(cancelled(source="/flotilla/api-gateway"), True, id="a source that may not"),
        pytest.param(cancelled(type=REQUEST_CREATED.name, source="/flotilla/elsewhere"), True, id="a forged request"),
    ],
)
async def test_event_that_can_never_succeed_is_not_replayed(
    agents: Agents, poison: Message, *, without_tenant: bool
) -> None:
    await agents.inbox.consume(poison)
    [letter] = await agents.all(FLEET)
    assert letter.malformed
    assert letter.tenant == ("" if without_tenant else "acme")
    assert [one.id for one in await agents.all(OLGA)] == ([] if without_tenant else [letter.id])
    for new_request in (None, new_id()):
        with pytest.raises(Problem) as caught:
            await agents.letters.replay(FLEET, letter.id, new_request)
        assert caught.value.kind is Problems.NOT_REPLAYABLE.value
    assert await agents.retry() == 0
    await agents.letters.discard(FLEET, letter.id, "its sender is mended")
    [entry] = await rows(agents.database, "SELECT tenant FROM audit_entries")
    assert entry == {"tenant": "acme"}, "the operator's tenant keeps the record of a letter without a tenant"


async def test_event_whose_id_is_too_long_for_an_index_is_kept_like_any_other(agents: Agents) -> None:
    chance = random.Random(7)
    name = "".join(chance.choice("αβγδεζηθικλμνξοπρστυφχψω") for _ in range(1024))
    event = cancelled(id=name)
    agents.faults = [Transient("busy")]
    await agents.inbox.consume(event)
    assert await agents.retry() == 1
    await agents.inbox.consume(event)
    assert await agents.effects() == 1
    poison = cancelled(id="".join(chance.choice("0123456789abcdef") for _ in range(9000)))
    for _ in range(2):
        await agents.inbox.consume(poison)
    [letter] = await agents.all(FLEET)
    await agents.letters.discard(FLEET, letter.id, "too long")


@pytest.mark.parametrize("event", [cancelled(), created()], ids=["a cancel", "a request"])
async def test_parked_event_is_listed_and_cannot_be_settled(agents: Agents, event: Message) -> None:
    agents.faults = [Transient("busy")]
    await agents.inbox.consume(event)
    assert await agents.all() == []
    [parked] = await agents.all(state="parked")
    assert (parked.reason, parked.died_at) == ("busy", None)
    for attempt in (agents.letters.replay(OLGA, parked.id, None), agents.letters.discard(OLGA, parked.id, "no")):
        with pytest.raises(Problem, match="tries the event again by itself") as caught:
            await attempt
        assert caught.value.kind is Problems.NOT_DEAD.value
    assert await agents.retry() == 1
    assert await agents.effects() == 1


async def test_pages_show_each_letter_once_and_the_last_death_first(agents: Agents) -> None:
    died = [(await agents.dies(cancelled())).id for _ in range(5)]
    await run(agents.database, "UPDATE inbox SET died_at = '2026-01-01T00:00:00Z'")
    died.sort(reverse=True)
    died = [(await agents.dies(cancelled())).id, *died]
    seen: list[DeadLetter] = []
    while page := await agents.all(limit=2, before=seen[-1].cursor if seen else None):
        assert len(page) <= 2
        seen += page
        assert len(seen) <= len(died), "a page begins behind the one before"
    assert [letter.id for letter in seen] == died


async def test_filters_return_only_matching_letters(agents: Agents) -> None:
    old, new = await agents.dies(cancelled()), await agents.dies(created())
    assert new.died_at is not None
    assert [one.id for one in await agents.all(type=REQUEST_CREATED.name)] == [new.id]
    assert [one.id for one in await agents.all(since=new.died_at)] == [new.id]
    assert [one.id for one in await agents.all(limit=1)] == [new.id]
    assert [one.id for one in await agents.all()] == [new.id, old.id]


async def test_event_that_could_not_be_published_is_replayed_by_the_sweep(database: Database, bus: ScriptedBus) -> None:
    outbox, letters = Outbox(database, bus), DeadLetters(database, "request-manager")
    context = EventContext(new_id(), new_id(), "acme", turn=1, expires=datetime.now(UTC))
    event = new_event("request-manager", REQUEST_CANCELLED, RequestCancelled(principal=ANN), context)
    bus.faults = [Permanent]
    async with outbox.running(), database.transaction() as tx:
        await outbox.publish(tx, event)
    [letter] = await letters.list(OLGA, LetterQuery())
    assert (letter.service, letter.box, letter.event_id) == ("request-manager", "outbox", event.id)
    assert letter.died_at is not None
    shown = await letters.show(OLGA, letter.id, content=True)
    assert shown.content is not None
    assert base64.b64decode(shown.content.data_base64) == event.data
    for _ in range(2):
        assert (await letters.replay(OLGA, letter.id, None)).outcome == "replayed"
    async with outbox.running():
        assert await outbox.sweep() == 1
    assert [message.attributes["id"] for message in bus.safe] == [event.id]
    assert await rows(database, "SELECT id FROM outbox") == []
    assert (await letters.replay(OLGA, letter.id, None)).outcome == "replayed"


async def test_request_that_could_not_be_published_becomes_a_new_one(database: Database, bus: ScriptedBus) -> None:
    outbox, letters = Outbox(database, bus), DeadLetters(database, "request-manager")
    context = EventContext(new_id(), new_id(), "acme", turn=1, expires=datetime.now(UTC))
    bus.faults = [Permanent]
    async with outbox.running(), database.transaction() as tx:
        data = RequestCreated(content="What time is it?", principal=ANN)
        await outbox.publish(tx, new_event("request-manager", REQUEST_CREATED, data, context))
    [letter] = await letters.list(OLGA, LetterQuery())
    asks = await letters.replay(OLGA, letter.id, None)
    assert asks == Settled(id=letter.id, outcome="needs_request", request_id=context.request_id)
    fresh = new_id()
    for new_request in (fresh, fresh, None):
        done = await letters.replay(OLGA, letter.id, new_request)
        assert done == Settled(id=letter.id, outcome="replayed", request_id=fresh)
    assert await rows(database, "SELECT id FROM outbox") == []
    assert bus.safe == [], "the old event is never published"


async def test_event_that_could_not_be_published_is_discarded(database: Database, bus: ScriptedBus) -> None:
    outbox, letters = Outbox(database, bus), DeadLetters(database, "request-manager")
    context = EventContext(new_id(), new_id(), "acme", turn=1, expires=datetime.now(UTC))
    bus.faults = [Permanent]
    async with outbox.running(), database.transaction() as tx:
        data = RequestCancelled(principal=ANN)
        await outbox.publish(tx, new_event("request-manager", REQUEST_CANCELLED, data, context))
    [letter] = await letters.list(OLGA, LetterQuery())
    await letters.discard(OLGA, letter.id, "nobody needs it")
    assert await rows(database, "SELECT id FROM outbox") == []
    assert await letters.list(OLGA, LetterQuery()) == []

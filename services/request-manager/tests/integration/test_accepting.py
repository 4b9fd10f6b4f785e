"""Accepting on real Postgres: one statement and one commit, under concurrency and crashes."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from durable_work.outbox import Outbox
from request_manager import domain
from request_manager.queries import accepting
from request_manager.usecases.cancel_request import cancel_unpublishable_request
from shared_clients.bus.memory import MemoryBus
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent
from shared_clients.postgres import Database
from shared_models.catalog import REQUEST_CANCELLED
from shared_models.envelope import MAX_DATA
from shared_models.ids import new_id
from shared_models.requests import MAX_CONTENT, RequestCancelled, RequestCreated
from tests.simulators.asking import Asking, somebody
from tests.simulators.bus import ScriptedBus
from tests.simulators.rows import row, rows, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def turns_of(database: Database, ask: Asking) -> Sequence[int]:
    """Return the turns of all requests of this caller, in order."""
    owner = ask.principal.person.key
    found = await rows(
        database, "SELECT turn FROM requests WHERE owner = :owner ORDER BY session_id, turn", owner=owner
    )
    return [row["turn"] for row in found]


async def events_of(database: Database, accepted: domain.Accepted) -> list[dict[str, str]]:
    found = await rows(
        database, "SELECT attributes FROM outbox WHERE key = :key ORDER BY created_at", key=str(accepted.session_id)
    )
    return [row["attributes"] for row in found]


async def test_request_turn_key_and_event_are_one_commit(database: Database, ask: Asking) -> None:
    accepted = await ask("What time is it?", key="k1")
    assert isinstance(accepted, domain.Accepted)
    written = await rows(
        database,
        """SELECT 'request' AS what, xmin::text AS by FROM requests WHERE request_id = :request
           UNION ALL SELECT 'turn', xmin::text FROM session_turns WHERE session_id = :session
           UNION ALL SELECT 'key', xmin::text FROM idempotency_keys WHERE request_id = :request
           UNION ALL SELECT 'event', xmin::text FROM outbox WHERE attributes->>'correlationid' = :text""",
        request=accepted.request_id,
        session=accepted.session_id,
        text=str(accepted.request_id),
    )
    assert sorted(row["what"] for row in written) == ["event", "key", "request", "turn"]
    assert len({row["by"] for row in written}) == 1


async def test_event_carries_the_request_with_its_turn_and_deadline(database: Database, ask: Asking) -> None:
    accepted = await ask.accepted("What time is it?")
    event = await row(
        database, "SELECT topic, attributes, data FROM outbox WHERE key = :key", key=str(accepted.session_id)
    )
    request = await row(database, "SELECT expires_at FROM requests WHERE request_id = :id", id=accepted.request_id)
    data = RequestCreated.model_validate_json(event["data"])
    assert data.content == "What time is it?"
    assert data.principal == ask.principal
    assert event["topic"] == "flotilla.requests"
    assert event["attributes"]["turn"] == "1"
    assert event["attributes"]["subject"] == event["attributes"]["correlationid"] == str(accepted.request_id)
    assert event["attributes"]["expirytime"] == request["expires_at"].isoformat()


async def test_turns_of_one_session_follow_each_other(ask: Asking) -> None:
    first = await ask.accepted()
    later = [await ask.accepted(session=first.session_id) for _ in range(3)]
    assert [first.turn, *(one.turn for one in later)] == [1, 2, 3, 4]


async def test_same_key_with_the_same_body_replays_the_ids(database: Database, ask: Asking) -> None:
    first = await ask("hi", key="k")
    assert isinstance(first, domain.Accepted)
    assert await ask("hi", key="k") == domain.Replayed(first.request_id, first.session_id)
    assert await turns_of(database, ask) == [1]
    assert len(await events_of(database, first)) == 1


async def test_same_key_with_another_body_is_refused_and_changes_nothing(database: Database, ask: Asking) -> None:
    first = await ask.accepted()
    assert isinstance(await ask("hi", session=first.session_id, key="k"), domain.Accepted)
    assert await ask("ho", session=first.session_id, key="k") == domain.KeyReused()
    assert await turns_of(database, ask) == [1, 2]
    assert (await ask.accepted(session=first.session_id)).turn == 3, "the refused one took no turn"


async def test_same_key_of_another_caller_is_another_key(ask: Asking) -> None:
    assert isinstance(await ask("hi", key="k"), domain.Accepted)
    assert isinstance(await ask("ho", key="k", principal=somebody()), domain.Accepted)
    elsewhere = ask.principal.model_copy(update={"tenant": "other"})
    assert isinstance(await ask("he", key="k", principal=elsewhere), domain.Accepted)
    same_person = ask.principal.model_copy(update={"credential": "another"})
    assert isinstance(await ask("hu", key="k", principal=same_person), domain.Accepted)


@pytest.mark.parametrize("in_a_session", [False, True])
async def test_twenty_twins_of_one_key_make_one_request_one_event_and_one_turn(
    database: Database, ask: Asking, in_a_session: bool
) -> None:
    session = (await ask.accepted()).session_id if in_a_session else None
    outcomes = await asyncio.gather(*(ask("hi", session=session, key="twin") for _ in range(20)))
    [accepted] = [outcome for outcome in outcomes if isinstance(outcome, domain.Accepted)]
    replayed = [outcome for outcome in outcomes if isinstance(outcome, domain.Replayed)]
    assert replayed == [domain.Replayed(accepted.request_id, accepted.session_id)] * 19
    assert await turns_of(database, ask) == ([1, 2] if in_a_session else [1])
    published = [event["correlationid"] for event in await events_of(database, accepted)]
    assert published.count(str(accepted.request_id)) == 1
    assert (await ask.accepted(session=accepted.session_id)).turn == accepted.turn + 1


async def test_fifty_concurrent_requests_in_one_session_have_gap_free_turns(database: Database, ask: Asking) -> None:
    session = (await ask.accepted()).session_id
    outcomes = await asyncio.gather(*(ask.accepted(str(n), session=session) for n in range(50)))
    assert sorted(outcome.turn for outcome in outcomes) == list(range(2, 52))
    assert await turns_of(database, ask) == list(range(1, 52))
    outbox_rows = await rows(
        database,
        "SELECT attributes->>'turn' AS turn, attributes->>'correlationid' AS id FROM outbox WHERE key = :key",
        key=str(session),
    )
    assert {(row["id"], int(row["turn"])) for row in outbox_rows} >= {
        (str(one.request_id), one.turn) for one in outcomes
    }


async def test_session_of_another_person_is_as_unknown_as_one_that_does_not_exist(
    database: Database, ask: Asking
) -> None:
    mine = await ask.accepted()
    for principal in (somebody(), ask.principal.model_copy(update={"tenant": "other"})):
        assert await ask(session=mine.session_id, principal=principal) == domain.UnknownSession()
    assert await ask(session=new_id()) == domain.UnknownSession()
    assert await turns_of(database, ask) == [1]
    assert (await ask.accepted(session=mine.session_id)).turn == 2


async def test_refused_request_leaves_its_key_unused(ask: Asking) -> None:
    assert await ask(session=new_id(), key="k") == domain.UnknownSession()
    assert isinstance(await ask(key="k"), domain.Accepted)


async def test_vouched_session_opens_once_under_concurrent_requests(database: Database, ask: Asking) -> None:
    session = new_id()
    outcomes = await asyncio.gather(*(ask(str(n), session=session, vouched=True) for n in range(10)))
    accepted = [outcome for outcome in outcomes if isinstance(outcome, domain.Accepted)]
    assert sorted(outcome.turn for outcome in accepted) == list(range(1, 11))
    assert (await ask.accepted(session=session)).turn == 11, "the session exists from now on"
    assert await turns_of(database, ask) == list(range(1, 12))


async def test_vouching_does_not_open_a_session_that_has_another_owner(ask: Asking) -> None:
    session = (await ask.accepted()).session_id
    assert await ask(session=session, vouched=True, principal=somebody()) == domain.UnknownSession()


async def test_request_whose_event_would_be_too_large_is_refused_and_nothing_is_written(
    database: Database, ask: Asking
) -> None:
    outcome = await ask("\N{SAILBOAT}" * (MAX_CONTENT - 1) + "\N{ANCHOR}", key="k")
    assert isinstance(outcome, domain.TooLarge)
    assert outcome.size > MAX_DATA
    assert await turns_of(database, ask) == []
    assert isinstance(await ask("small", key="k"), domain.Accepted)


async def test_longest_text_of_two_bytes_a_character_is_accepted(ask: Asking) -> None:
    await ask.accepted("ü" * (MAX_CONTENT - 512))


async def test_event_of_a_process_that_died_after_the_commit_is_swept(database: Database, ask: Asking) -> None:
    accepted = await ask.accepted()  # its outbox was never run, as if the process had died before the hand-over
    delivered: list[Message] = []
    bus = MemoryBus()

    async def deliver(message: Message) -> None:
        delivered.append(message)

    await run(database, "DELETE FROM outbox WHERE key <> :key", key=str(accepted.session_id))
    await run(database, "UPDATE outbox SET next_attempt_at = now()")
    successor = Outbox(database, bus)
    async with bus.subscribe("agent-service", frozenset({"flotilla.requests"}), deliver), successor.running():
        assert await successor.sweep() == 1
    assert [(one.attributes["correlationid"], one.attributes["turn"]) for one in delivered] == [
        (str(accepted.request_id), "1")
    ]
    assert await rows(database, "SELECT id FROM outbox") == []


async def test_event_is_handed_over_right_after_the_commit(database: Database) -> None:
    delivered: list[Message] = []
    bus = MemoryBus()

    async def deliver(message: Message) -> None:
        delivered.append(message)

    async with bus.subscribe("agent-service", frozenset({"flotilla.requests"}), deliver):
        outbox = Outbox(database, bus)
        async with outbox.running():
            accepted = await Asking(database, outbox).accepted()
    assert [one.attributes["turn"] for one in delivered] == [str(accepted.turn)]
    stored = await rows(database, "SELECT id FROM outbox WHERE key = :key", key=str(accepted.session_id))
    assert stored == []


async def test_request_whose_event_is_refused_by_the_transport_is_cancelled_at_agent_service(
    database: Database,
) -> None:
    bus = ScriptedBus()
    bus.faults = [Permanent]
    outbox = Outbox(
        database, bus, on_dead=lambda tx, event, error: cancel_unpublishable_request(tx, outbox, event, error)
    )
    async with outbox.running():
        ask = Asking(database, outbox)
        accepted = await ask.accepted()
    [cancellation] = [message for message in bus.safe if message.attributes["type"] == REQUEST_CANCELLED.name]
    assert (cancellation.key, cancellation.attributes["turn"]) == (str(accepted.session_id), "1")
    data = RequestCancelled.model_validate_json(cancellation.data)
    assert data.principal == ask.principal
    assert data.undeliverable
    statement = "SELECT state FROM outbox WHERE attributes->>'correlationid' = :id"
    assert await rows(database, statement, id=str(accepted.request_id)) == [{"state": "dead"}], (
        "the dead letter is kept"
    )


async def test_cancelled_accepts_leave_no_gap_and_no_request_without_its_event(database: Database, ask: Asking) -> None:
    session = (await ask.accepted()).session_id
    for pause in range(24):
        leaving = asyncio.create_task(ask(f"leaving {pause}", session=session))
        await asyncio.sleep(pause / 4000)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    outcomes = await asyncio.gather(*(ask.accepted(session=session) for _ in range(20)))
    turns = await turns_of(database, ask)
    assert turns == list(range(1, len(turns) + 1))
    assert max(outcome.turn for outcome in outcomes) == turns[-1]
    outbox_rows = await rows(
        database, "SELECT (attributes->>'turn')::int AS turn FROM outbox WHERE key = :key ORDER BY 1", key=str(session)
    )
    assert [row["turn"] for row in outbox_rows] == turns


async def test_key_is_deleted_after_its_lifetime_and_not_before(database: Database, ask: Asking) -> None:
    first = await ask("hi", key="k")
    assert isinstance(first, domain.Accepted)
    await run(
        database,
        "UPDATE idempotency_keys SET created_at = now() - interval '47 hours' WHERE request_id = :id",
        id=first.request_id,
    )
    assert await accepting.delete_expired_keys(database, timedelta(hours=48)) == 0
    assert isinstance(await ask("hi", key="k"), domain.Replayed)
    assert await accepting.delete_expired_keys(database, timedelta(hours=46)) == 1
    second = await ask("hi", key="k")
    assert isinstance(second, domain.Accepted)
    assert second.request_id != first.request_id

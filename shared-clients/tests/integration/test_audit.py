"""The audit log on real Postgres: entries with their effects, sealers that compete, die and come back, and the refusal
to change anything. Faked: nothing.
"""

import asyncio
from uuid import UUID

import pytest

from durable_work import metrics
from durable_work.audit import Actor, Entry, record
from durable_work.audit.anchors import Anchored
from durable_work.audit.sealing import CLAIM_LEASE, Sealer
from durable_work.audit.verifying import verify
from shared_clients.errors import Permanent, Transient
from shared_clients.postgres import Database, UniqueViolation, sql
from shared_models.audit import Action, Outcome
from shared_models.ids import new_id
from shared_models.principals import Person

ACTOR = Actor("key-1", Person("test", "somebody"))
EXPIRE = sql("UPDATE audit_sealer SET expires_at = now() - interval '1 second'")
END_IDLE = sql("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE state = 'idle in transaction' AND datname = current_database()
""")
"""What Postgres does itself after `idle_in_transaction_session_timeout`."""
SEALED = sql("SELECT s.number, e.subject FROM audit_seals s JOIN audit_entries e ON e.id = s.entry_id ORDER BY number")


def entry(subject: str, **details: str) -> Entry:
    return Entry("default", ACTOR, Action.SESSION_DELETED, subject, details)


async def write(database: Database, *subjects: str) -> None:
    for subject in subjects:
        async with database.transaction() as tx:
            await record(tx, entry(subject))


async def sealed(database: Database) -> list[tuple[int, str]]:
    async with database.autocommit() as tx:
        return [(row["number"], row["subject"]) for row in await tx.rows(SEALED)]


async def expire(database: Database) -> None:
    async with database.autocommit() as tx:
        await tx.run(EXPIRE)


async def test_an_entry_says_who_did_what_to_what_and_when_by_the_databases_clock(database: Database) -> None:
    async with database.transaction() as tx:
        wanted = Entry("acme", ACTOR, Action.SIGNED_IN, "link-7", {"channel": "web"}, Outcome.REFUSED)
        await record(tx, wanted)
        row = await tx.row(sql("SELECT *, clock_timestamp() - at AS age FROM audit_entries"))
    assert row is not None
    assert (row["tenant"], row["credential"], row["person"]) == ("acme", "key-1", "test|somebody")
    assert (row["action"], row["subject"], row["outcome"]) == ("sign_in.done", "link-7", "refused")
    assert row["details"] == {"channel": "web"}
    assert len(row["trace_id"]) == 32
    assert 0 <= row["age"].total_seconds() < 60


async def test_an_effect_that_is_rolled_back_leaves_no_entry(database: Database) -> None:

    async def fail() -> None:
        async with database.transaction() as tx:
            await record(tx, entry("never"))
            raise RuntimeError("no effect")

    with pytest.raises(RuntimeError, match="no effect"):
        await fail()
    assert await Sealer(database).seal() == 0
    assert await sealed(database) == []


async def test_what_is_long_is_cut_and_what_is_much_is_refused(database: Database) -> None:
    async with database.transaction() as tx:
        await record(tx, entry("s" * 10_000, **{f"\x00{number}" * 300: "\x01" * 10_000 for number in range(8)}))
        row = await tx.row(sql("SELECT subject, details FROM audit_entries"))
        assert row is not None
        assert len(row["subject"]) == 500
        assert {len(value) for value in row["details"].values()} == {500}
        with pytest.raises(ValueError, match=r"at most 8 details, and session.deleted came with 9"):
            await record(tx, entry("s", **{str(number): "" for number in range(9)}))


@pytest.mark.parametrize("table", ["audit_entries", "audit_seals"])
@pytest.mark.parametrize("statement", ["UPDATE {0} SET {1} = {1}", "DELETE FROM {0}", "TRUNCATE {0} CASCADE"])
async def test_not_even_the_owner_changes_or_deletes_a_row(database: Database, table: str, statement: str) -> None:
    await write(database, "a")
    await Sealer(database).seal()
    column = {"audit_entries": "subject", "audit_seals": "hash"}[table]

    async def attempt(before: str) -> None:
        async with database.transaction() as tx:
            await tx.run(sql(before))
            await tx.run(sql(statement.format(table, column)))

    for before in ("SELECT 1", "SET LOCAL session_replication_role = replica"):
        with pytest.raises(Permanent):
            await attempt(before)
    assert await sealed(database) == [(1, "a")]


async def test_what_commits_late_is_sealed_late_and_not_lost(database: Database) -> None:
    sealer = Sealer(database)
    async with database.transaction() as slow:
        await record(slow, entry("slow"))
        await write(database, "quick")
        assert await sealer.seal() == 1
    assert await sealer.seal() == 1
    assert await sealed(database) == [(1, "quick"), (2, "slow")]
    assert (await verify(database, Anchored())).faults == ()


async def test_two_sealers_at_once_make_one_chain_without_gaps(database: Database) -> None:
    sealers = [Sealer(database) for _ in range(2)]
    for turn in range(10):
        writing = asyncio.gather(*(write(database, f"{turn}-{number}") for number in range(6)))
        await asyncio.gather(*(sealer.seal() for sealer in sealers for _ in range(2)))
        await writing
        if turn % 3 == 0:
            await expire(database)
    for sealer in sealers:
        await sealer.seal()
    assert [number for number, _ in await sealed(database)] == list(range(1, 61))
    assert (await verify(database, Anchored())).faults == ()


async def test_only_the_holder_seals_until_its_lease_runs_out(database: Database) -> None:
    first, second = Sealer(database), Sealer(database)
    await write(database, "a")
    assert await first.seal() == 1
    await write(database, "b")
    assert await second.seal() is None
    await expire(database)
    assert await second.seal() == 1
    assert await first.seal() is None, "a sealer that was away for longer than its lease is none any more"
    assert await sealed(database) == [(1, "a"), (2, "b")]


async def test_a_sealer_that_stops_in_the_middle_leaves_no_gap_and_cannot_finish(database: Database) -> None:
    await write(database, "a", "b")
    zombie, successor = Sealer(database), Sealer(database)

    async def stop_and_go_on() -> None:
        async with database.transaction() as tx:
            await tx.run(CLAIM_LEASE, sealer=zombie._sealer)
            assert await zombie._extend_chain(tx) == 2
            assert await successor.seal() is None, "the sealing replica has locked the lease's row"
            async with database.autocommit() as other:
                await other.run(END_IDLE)
            await zombie._extend_chain(tx)

    with pytest.raises(Transient):
        await stop_and_go_on()
    assert await successor.seal() == 2
    assert await sealed(database) == [(1, "a"), (2, "b")]
    assert (await verify(database, Anchored())).faults == ()


async def test_a_second_chain_beside_the_first_is_refused_by_the_tables(database: Database) -> None:
    await write(database, "a", "b")
    await Sealer(database).seal()
    async with database.autocommit() as tx:
        row = await tx.row(sql("SELECT entry_id FROM audit_seals WHERE number = 1"))
    assert row is not None
    for number, id_ in ((2, new_id()), (3, row["entry_id"])):
        with pytest.raises(UniqueViolation, match="audit_seals"):
            await force_seal(database, number, id_)
    assert [number for number, _ in await sealed(database)] == [1, 2]


async def force_seal(database: Database, number: int, entry_id: UUID) -> None:
    async with database.transaction() as tx:
        statement = sql("INSERT INTO audit_seals (number, entry_id, hash) VALUES (:number, :entry_id, :hash)")
        await tx.run(statement, number=number, entry_id=entry_id, hash=bytes(32))


async def test_unsealed_entries_are_counted_with_their_age(database: Database) -> None:
    await write(database, "a")
    await Sealer(database).seal()
    assert metrics.AUDIT_UNSEALED.labels(database.schema)._value.get() == 0
    assert metrics.AUDIT_UNSEALED_SECONDS.labels(database.schema)._value.get() == 0

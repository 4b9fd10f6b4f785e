"""Every kind of tampering with an audit log that a superuser can do, with its triggers switched off, is found.

Faked: nothing. The attacker has the database and its code, and neither the anchor files nor the key.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from durable_work import metrics
from durable_work.audit import Actor, Entry, record
from durable_work.audit.anchoring import anchor_head
from durable_work.audit.anchors import append, last_anchor, read_anchors, read_keys, sign
from durable_work.audit.sealing import Sealer
from durable_work.audit.verifying import PAGE, Report, verify
from shared_clients.errors import Permanent
from shared_clients.identity import generate_key, private_pem
from shared_clients.postgres import Database, sql
from shared_models.audit import Action
from shared_models.principals import Person
from tests.simulators.rows import row, run

KEY = generate_key()
SCHEMA = "durable"
ROWS = 9
FILE = f"{SCHEMA}.jsonl"
TABLES = ("audit_entries", "audit_seals")

type Tampering = Callable[[Database], Awaitable[None]]


class Log:
    """An audit log with its witness."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder

    async def write(self, *subjects: str, sealing: bool = True) -> None:
        for subject in subjects:
            async with self.database.transaction() as tx:
                actor = Actor("key-1", Person("test", "somebody"))
                await record(tx, Entry("acme", actor, Action.SESSION_DELETED, subject, {"why": "asked"}))
        if sealing:
            await run(self.database, "UPDATE audit_sealer SET expires_at = '-infinity'")
            await Sealer(self.database).seal()

    async def anchor(self, key: Ed25519PrivateKey = KEY) -> int:
        anchor = await anchor_head(self.database, self.folder, key)
        return anchor.number if anchor else 0

    async def verify(self) -> Report:
        return await verify(self.database, read_anchors(self.folder, SCHEMA, read_keys([private_pem(KEY)])))

    async def tamper(self, *statements: str) -> None:
        """Do it as somebody who may do anything."""
        for switch in ("DISABLE TRIGGER ALL", "ENABLE TRIGGER ALL"):
            if switch.startswith("ENABLE"):
                async with self.database.transaction() as tx:
                    for statement in statements:
                        assert await tx.run(sql(statement)) != 0, f"{statement} changes nothing"
            for table in (*TABLES, "audit_waiting"):
                await run(self.database, f"ALTER TABLE {table} {switch}")


@pytest_asyncio.fixture
async def log(database: Database, tmp_path: Path) -> AsyncGenerator[Log]:
    log = Log(database, tmp_path / "anchors")
    await log.write(*(f"before {number}" for number in range(1, 5)))
    await log.anchor()
    await log.write(*(f"after {number}" for number in range(5, ROWS + 1)))
    await log.anchor()
    assert (await log.verify()).faults == ()
    yield log


def said(report: Report) -> str:
    return "; ".join(f"{fault.number}: {fault.what}" for fault in report.faults)


def entry(number: int) -> str:
    return f"(SELECT entry_id FROM audit_seals WHERE number = {number})"


async def test_a_log_that_nobody_touched_is_good_and_says_what_is_still_open(log: Log) -> None:
    await log.write("sealed")
    await log.write("waiting", sealing=False)
    report = await log.verify()
    assert report.faults == ()
    assert (report.sealed, report.anchored, report.anchors, report.waiting) == (ROWS + 1, ROWS, 2, 1)


async def test_a_change_of_any_column_is_found_at_its_number(log: Log) -> None:
    changes = [
        *(f"{column} = 'x'" for column in ("tenant", "credential", "person", "action", "subject", "outcome")),
        *("trace_id = 'x'", "at = at + interval '1 microsecond'", "at = 'infinity'"),
        *("""details = '{}'""", """details = '{"why": ["asked"]}'""", """details = '{"why": "asked", "more": ""}'"""),
    ]
    await log.write(*(f"row {number}" for number in range(ROWS + 1, len(changes) + 2)))
    for number, change in enumerate(changes, start=1):
        await log.tamper(f"UPDATE audit_entries SET {change} WHERE id = {entry(number)}")
    report = await log.verify()
    assert [fault.number for fault in report.faults] == list(range(1, len(changes) + 1))
    assert all("was changed" in fault.what for fault in report.faults)


async def test_a_deleted_row_is_found_at_its_number(log: Log) -> None:
    await log.tamper(f"DELETE FROM audit_entries WHERE id = {entry(3)}")
    assert said(await log.verify()) == "3: its entry is gone"


async def test_a_row_deleted_with_its_seal_leaves_a_gap(log: Log) -> None:
    await log.tamper(f"DELETE FROM audit_entries WHERE id = {entry(3)}", "DELETE FROM audit_seals WHERE number = 3")
    assert said(await log.verify()) == "3: missing, up to 3: seals were deleted"


async def test_a_deleted_seal_is_found_from_both_sides(log: Log) -> None:
    await log.tamper("DELETE FROM audit_seals WHERE number = 3")
    assert "3: missing, up to 3" in said(await log.verify())
    assert "its seal was deleted" in said(await log.verify())


async def test_an_inserted_row_is_found(log: Log) -> None:
    await log.tamper(copy_of(3, new="gen_random_uuid()"))
    assert "was inserted without a seal, or its seal was deleted" in said(await log.verify())


async def test_a_row_dated_back_and_given_to_the_sealer_is_found(log: Log) -> None:
    new = "00000000-0000-7000-8000-000000000000"
    await log.tamper(
        copy_of(3, new=f"'{new}'"),
        f"UPDATE audit_entries SET at = at - interval '2 minutes' WHERE id = '{new}'",
        f"INSERT INTO audit_waiting VALUES ('{new}')",
    )
    await log.write("next")
    report = await log.verify()
    assert [fault.number for fault in report.faults] == [ROWS + 1]
    assert "inserted later than its timestamp" in said(report)


@pytest.mark.parametrize("change", ["hash = sha256('x')", f"entry_id = {entry(ROWS)}"])
async def test_a_changed_seal_is_found(log: Log, change: str) -> None:
    if "entry_id" in change:
        await log.tamper(f"DELETE FROM audit_seals WHERE number = {ROWS} RETURNING 1")
        change = "entry_id = (SELECT id FROM audit_entries ORDER BY id DESC LIMIT 1)"
    await log.tamper(f"UPDATE audit_seals SET {change} WHERE number = 3")
    assert (await log.verify()).faults[0].number == 3


async def test_swapped_rows_are_both_found(log: Log) -> None:
    one, other = [(await row(log.database, f"SELECT {entry(number)} AS id"))["id"] for number in (3, 6)]
    await log.tamper(
        "DELETE FROM audit_seals WHERE number = 3 RETURNING 1",
        f"UPDATE audit_seals SET entry_id = '{one}' WHERE number = 6",
        f"INSERT INTO audit_seals SELECT 3, '{other}', hash FROM audit_seals WHERE number = 6",
    )
    assert {3, 6} <= {fault.number for fault in (await log.verify()).faults}


async def test_a_cut_off_end_is_found_by_its_anchor(log: Log) -> None:
    await log.tamper(
        "CREATE TEMP TABLE cut ON COMMIT DROP AS SELECT entry_id FROM audit_seals WHERE number > 6",
        "DELETE FROM audit_seals WHERE number > 6",
        "DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM cut)",
    )
    report = await log.verify()
    assert [fault.number for fault in report.faults] == [7]
    assert f"missing, up to {ROWS}, which was anchored at" in said(report)


@pytest.mark.parametrize("dropped", ["", "after 5"])
async def test_a_chain_that_was_wholly_written_anew_is_found_at_the_first_anchor(log: Log, dropped: str) -> None:
    await rewrite(log, dropped=dropped)
    report = await log.verify()
    assert report.faults[0].number == 4
    assert "the chain is rewritten" in said(report)
    with pytest.raises(Permanent, match=r"the audit log of durable is not the one that was signed at .* number 9"):
        await log.anchor()


async def test_the_witness_does_not_sign_what_was_rewritten_since_it_signed(log: Log) -> None:
    await log.write("ten", "eleven")
    await log.tamper(f"UPDATE audit_entries SET subject = 'x' WHERE id = {entry(10)}")
    with pytest.raises(Permanent, match=r"number 10: the entry .* was changed. Run: flotilla audit verify"):
        await log.anchor()
    assert len((log.folder / FILE).read_text().splitlines()) == 2


async def test_no_anchor_at_all_is_a_fault_once_there_should_be_one(log: Log) -> None:
    (log.folder / FILE).unlink()
    assert (await log.verify()).faults == (), "a log may be younger than its first anchor"
    await log.tamper("UPDATE audit_entries SET at = at - interval '10 minutes'")
    assert "there is no anchor" in said(await log.verify())


async def test_a_changed_anchor_is_named_by_its_line(log: Log) -> None:
    first, second = (log.folder / FILE).read_text().splitlines()
    for change, expected in {
        ("number", 3): "has a wrong signature",
        ("at", "2020-01-01T00:00:00.000000Z"): "has a wrong signature",
        ("whole_until", "2020-01-01T00:00:00.000000Z"): "has a wrong signature",
        ("hash", "00" * 32): "has a wrong signature",
        ("chain", "another"): "has a wrong signature",
        ("signature", "00" * 64): "has a wrong signature",
        ("signature", "no hexadecimal"): "has a wrong signature",
        ("kid", "somebody"): "is signed with the key somebody, which is not among the given public keys",
        ("more", "than there should be"): "is unreadable",
    }.items():
        (log.folder / FILE).write_text(f"{json.dumps(json.loads(first) | dict([change]))}\n{second}\n")
        assert f"line 1 of {FILE} {expected}" in said(await log.verify())


async def test_an_anchor_of_a_stranger_or_of_another_chain_is_not_believed(log: Log) -> None:
    await log.write("ten")
    await anchor_head(log.database, log.folder, generate_key(), previous=read_keys([private_pem(KEY)]))
    assert "which is not among the given public keys" in said(await log.verify())


async def test_an_anchor_file_of_another_chain_is_not_believed(log: Log, tmp_path: Path) -> None:
    keys = read_keys([private_pem(KEY)])
    (log.folder / "another.jsonl").write_bytes((log.folder / FILE).read_bytes())
    assert [fault.what for fault in read_anchors(log.folder, "another", keys).faults] == [
        f"line {line} of another.jsonl is of the chain durable" for line in (1, 2)
    ]


async def test_a_line_that_a_crash_tore_stays_alone(log: Log) -> None:
    path = log.folder / FILE
    path.write_bytes(path.read_bytes() + b'{"chain": "dur')
    await log.write("ten")
    assert await log.anchor() == ROWS + 1
    report = await log.verify()
    assert said(report) == f"None: line 3 of {FILE} is unreadable: a crash cut it, or it was changed"
    assert report.anchored == ROWS + 1


async def test_an_anchor_is_only_written_when_the_chain_has_grown(log: Log) -> None:
    assert await log.anchor() == 0
    assert len((log.folder / FILE).read_text().splitlines()) == 2
    assert (log.folder / FILE).stat().st_mode & 0o777 == 0o600
    assert metrics.AUDIT_ANCHORED.labels(SCHEMA)._value.get() > 0


async def test_verifying_while_services_write_finds_nothing(log: Log) -> None:
    async def write() -> None:
        for number in range(20):
            await log.write(f"meanwhile {number}")

    writing = asyncio.create_task(write())
    while not writing.done():
        await log.anchor()
        assert (await log.verify()).faults == ()
    await writing


async def test_long_chains_are_walked_page_by_page(log: Log) -> None:
    many = PAGE + 10
    await run(
        log.database,
        f"""WITH e AS (INSERT INTO audit_entries (id, tenant, credential, person, action, subject, outcome, details,
            trace_id) SELECT gen_random_uuid(), 'a', 'b', 'c', 'd', n::text, 'done', '{{}}', 'f'
            FROM generate_series(1, {many}) n RETURNING id) INSERT INTO audit_waiting SELECT id FROM e""",
    )
    sealer = Sealer(log.database)
    await run(log.database, "UPDATE audit_sealer SET expires_at = '-infinity'")
    while await sealer.seal():
        pass
    report = await log.verify()
    assert (report.faults, report.sealed, report.waiting) == ((), ROWS + many, 0)
    assert await log.anchor() == ROWS + many


def copy_of(number: int, *, new: str) -> str:
    columns = "tenant, at, credential, person, action, subject, outcome, details, trace_id"
    source = f"SELECT {new}, {columns} FROM audit_entries WHERE id = {entry(number)}"
    return f"INSERT INTO audit_entries (id, {columns}) {source}"


async def rewrite(log: Log, *, dropped: str) -> None:
    """Change a row, take another out, and make a chain without any fault of its own, as the sealer would."""
    await log.tamper(
        "UPDATE audit_entries SET subject = 'innocent' WHERE subject = 'before 3'",
        "INSERT INTO audit_waiting SELECT entry_id FROM audit_seals ORDER BY number",
        "DELETE FROM audit_seals",
    )
    if dropped:
        which = f"IN (SELECT id FROM audit_entries WHERE subject = '{dropped}')"
        await log.tamper(f"DELETE FROM audit_waiting WHERE id {which}", f"DELETE FROM audit_entries WHERE id {which}")
    await log.write("one more")


async def test_the_witness_does_not_build_on_an_anchor_that_its_key_did_not_sign(log: Log) -> None:
    last = last_anchor(log.folder, SCHEMA, read_keys([private_pem(KEY)]))
    assert last is not None
    append(log.folder, sign(last, generate_key()))
    await log.write("one more")
    with pytest.raises(Permanent, match=r"is signed with the key .* not among the given public keys"):
        await log.anchor()
    append(log.folder, last.model_copy(update={"number": ROWS - 1}))
    with pytest.raises(Permanent, match="has a wrong signature"):
        await log.anchor()


async def test_the_witness_goes_on_after_a_change_of_keys_that_it_was_told_of(log: Log) -> None:
    await log.write("one more")
    fresh = generate_key()
    with pytest.raises(Permanent, match="FLOTILLA_AUDIT_PREVIOUS_KEY"):
        await log.anchor(fresh)
    previous = read_keys([private_pem(KEY)])
    anchor = await anchor_head(log.database, log.folder, fresh, previous=previous)
    assert anchor is not None
    assert anchor.number == ROWS + 1


@pytest.mark.parametrize("content", [None, "", "nothing readable\n"])
async def test_the_witness_does_not_begin_anew_on_an_old_chain(log: Log, content: str | None) -> None:
    await log.tamper("UPDATE audit_entries SET at = at - interval '1 hour'")
    if content is None:
        (log.folder / FILE).unlink()
    else:
        (log.folder / FILE).write_text(content)
    with pytest.raises(Permanent, match=r"old and has no anchor|no readable anchor"):
        await log.anchor()
    assert not (log.folder / FILE).exists() or (log.folder / FILE).read_text() == content

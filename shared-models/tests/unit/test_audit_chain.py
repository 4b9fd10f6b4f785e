"""The canonical form and the hash chain, for arbitrary entries."""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from shared_models.audit_chain import Anchor, Checker, Row, canonical, first_hash, moment, next_hash

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
ROWS = st.builds(
    Row,
    id=st.uuids(),
    tenant=TEXT,
    at=st.integers(0, 10**9).map(lambda seconds: moment(BEGAN + timedelta(seconds=seconds))),
    credential=TEXT,
    person=TEXT,
    action=TEXT,
    subject=TEXT,
    outcome=TEXT,
    details=st.dictionaries(TEXT, TEXT, max_size=4),
    trace_id=TEXT,
)
CHAINS = st.lists(ROWS, min_size=3, max_size=8, unique_by=lambda row: row.id)

type Seal = tuple[int, bytes, Row | None]


def row(number: int, at: datetime = BEGAN) -> Row:
    return Row(UUID(int=number), "acme", moment(at), "key", "us|me", "a", f"subject {number}", "done", {}, "0")


def sealed(rows: Sequence[Row], chain: str = "log") -> list[Seal]:
    seals: list[Seal] = []
    last = first_hash(chain)
    for number, one in enumerate(rows, start=1):
        last = next_hash(last, number, one)
        seals.append((number, last, one))
    return seals


def anchor_of(seals: Sequence[Seal], number: int, whole_until: datetime = BEGAN) -> dict[int, Anchor]:
    stored = seals[number - 1][1]
    time = moment(whole_until)
    return {number: Anchor(chain="log", number=number, hash=stored.hex(), at=time, whole_until=time)}


def faults(seals: Sequence[Seal], anchors: dict[int, Anchor] | None = None) -> list[tuple[int | None, str]]:
    checker = Checker("log", anchors or {})
    found = [fault for seal in seals for fault in checker.take(*seal)]
    return [(fault.number, fault.what) for fault in [*found, *checker.end()]]


@given(ROWS, ROWS)
def test_two_entries_have_the_same_hash_only_if_they_are_the_same(one: Row, other: Row) -> None:
    before = first_hash("log")
    assert (next_hash(before, 1, one) == next_hash(before, 1, other)) is (one == other)
    assert next_hash(before, 1, one) != next_hash(before, 2, one)
    assert next_hash(before, 1, one) != next_hash(first_hash("another log"), 1, one)


@given(st.dictionaries(TEXT, st.one_of(TEXT, st.dictionaries(TEXT, TEXT, max_size=3)), max_size=5))
def test_canonical_bytes_are_equal_json_in_one_order(members: dict[str, object]) -> None:
    written = canonical(members)
    assert json.loads(written) == members
    assert canonical(dict(reversed(members.items()))) == written


def test_canonical_bytes_are_those_of_rfc_8785() -> None:
    # Section 3.2.3 sorts by UTF-16 code units: the smiley (D83D…) comes before U+FB33, though its code point is above.
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(canonical(dict.fromkeys(names, "")))) == ordered
    assert canonical({"a": '\u20ac$\u000f\u000aA\'B"\\"/\x7f'}) == '{"a":"€$\\u000f\\nA\'B\\"\\\\\\"/\x7f"}'.encode()


@given(CHAINS)
def test_a_chain_as_it_was_written_has_no_fault(rows: list[Row]) -> None:
    seals = sealed(rows)
    assert faults(seals, anchor_of(seals, len(rows))) == []


@given(CHAINS, st.data())
def test_any_change_of_any_member_of_an_entry_is_found_at_its_number(rows: list[Row], data: st.DataObject) -> None:
    seals = sealed(rows)
    at = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from([field.name for field in fields(Row)]))
    value = data.draw(ROWS.map(lambda other: getattr(other, name)))
    changed = replace(rows[at], **{name: value})
    seals[at] = (at + 1, seals[at][1], changed)
    assert [number for number, _ in faults(seals)] == ([] if changed == rows[at] else [at + 1])


@given(CHAINS, st.data())
def test_a_seal_taken_out_is_named_by_its_number(rows: list[Row], data: st.DataObject) -> None:
    seals = sealed(rows)
    at = data.draw(st.integers(0, len(rows) - 1))
    found = faults(seals[:at] + seals[at + 1 :], anchor_of(seals, len(rows)))
    assert found[0][0] == at + 1
    assert "missing" in found[0][1]


@given(CHAINS, st.data())
def test_two_rows_that_changed_places_are_both_found(rows: list[Row], data: st.DataObject) -> None:
    seals = sealed(rows)
    one, other = sorted(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=2, max_size=2, unique=True)))
    swapped = list(seals)
    swapped[one] = (one + 1, seals[one][1], rows[other])
    swapped[other] = (other + 1, seals[other][1], rows[one])
    assert {one + 1, other + 1} == {number for number, _ in faults(swapped)}


@given(CHAINS, CHAINS)
def test_a_rewritten_chain_contradicts_its_anchors(rows: list[Row], others: list[Row]) -> None:
    anchors = anchor_of(sealed(rows), len(rows))
    forged = [*others, *rows][: len(rows)]
    expected = "rewritten" if forged != rows else ""
    assert expected in "".join(what for _, what in faults(sealed(forged), anchors))
    assert bool(faults(sealed(forged), anchors)) is bool(expected)


def test_an_end_that_was_cut_off_is_found_by_the_anchor_beyond_it() -> None:
    seals = sealed([row(1), row(2), row(3)])
    anchors = anchor_of(seals, 3)
    assert [number for number, _ in faults(seals[:2], anchors)] == [3]
    assert "cut off" in faults(seals[:2], anchors)[0][1]
    assert [number for number, _ in faults([], anchors)] == [1]


def test_an_entry_that_is_gone_is_named() -> None:
    seals = sealed([row(1), row(2)])
    assert faults([seals[0], (2, seals[1][1], None)]) == [(2, "its entry is gone")]


def test_an_entry_dated_back_into_the_anchored_time_is_found() -> None:
    whole = BEGAN + timedelta(hours=1)
    slow, forged = row(2, whole - timedelta(seconds=59)), row(3, whole - timedelta(seconds=61))
    seals = sealed([row(1), slow, forged])
    found = faults(seals, anchor_of(seals, 1, whole))
    assert [number for number, _ in found] == [3]
    assert "inserted later than its timestamp" in found[0][1]

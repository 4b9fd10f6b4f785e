"""A Last-Event-ID is a cursor or is refused, and cursors sort as Redis sorts ids."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared_models.frames import LAST_SEQUENCE, REOPENED, START, Cursor

NUMBERS = st.integers(0, 10**18 - 1)
CURSORS = st.builds(Cursor, NUMBERS, NUMBERS)
ALMOST = (
    st.from_regex(r"\A[ +-]?[0-9_]{0,22}[-\u2013]?[0-9_]{0,22}\s?\Z")
    | st.text()
    | st.from_regex(r"\A\d{1,3}-\d{1,3}\Z")
)


@given(CURSORS)
def test_cursor_is_read_as_it_is_written(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


@given(ALMOST | st.text())
@example("1-1\n")
@example("01-1")
@example("\uff11-\uff11")
@example("-1-1")
@example("9" * 30 + "-0")
def test_arbitrary_text_is_a_cursor_in_canonical_form_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert str(Cursor.parse(text)) == text


@given(one=CURSORS, other=CURSORS)
def test_order_is_that_of_redis_ids(one: Cursor, other: Cursor) -> None:
    ids = [tuple(int(part) for part in str(cursor).split("-")) for cursor in (one, other)]
    assert (one < other) == (ids[0] < ids[1])
    assert (one == other) == (ids[0] == ids[1])


@given(epoch=st.integers(1, 10**9), sequence=st.integers(1, LAST_SEQUENCE))
def test_terminal_cursor_is_after_all_of_its_epoch_and_before_all_of_the_next(epoch: int, sequence: int) -> None:
    terminal = Cursor(epoch + 1, 0)
    assert START < REOPENED < Cursor(epoch, sequence) < terminal < Cursor(epoch + 1, sequence)
    assert terminal.is_terminal
    assert not Cursor(epoch, sequence).is_terminal


@pytest.mark.parametrize("cursor", [START, REOPENED])
def test_first_cursors_have_not_ended(cursor: Cursor) -> None:
    assert not cursor.is_terminal

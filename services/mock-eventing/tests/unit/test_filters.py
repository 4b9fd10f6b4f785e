"""Which events a trigger's filters let through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mock_eventing.domain.filters import Filter, matches_all, matches_exactly

EVENT = {"type": "com.example.made", "source": "/a/b", "n": "1"}

YES = {"exact": {"type": "com.example.made"}}
NO = {"exact": {"type": "com.example.gone"}}


def matches(**given_: object) -> bool:
    return Filter.model_validate(given_).matches(EVENT)


@pytest.mark.parametrize(
    ("dialect", "attributes", "expected"),
    [
        ("exact", {"type": "com.example.made"}, True),
        ("exact", {"type": "com.example.made", "n": "1"}, True),
        ("exact", {"type": "com.example.made", "n": "2"}, False),
        ("exact", {"type": "com.example.Made"}, False),
        ("exact", {"absent": "x"}, False),
        ("prefix", {"type": "com.example."}, True),
        ("prefix", {"type": "com.example.made", "source": "/a"}, True),
        ("prefix", {"type": "com.example.", "source": "/b"}, False),
        ("prefix", {"absent": "x"}, False),
        ("suffix", {"type": ".made"}, True),
        ("suffix", {"source": "/a"}, False),
        ("suffix", {"absent": "x"}, False),
    ],
)
def test_a_dialect_compares_every_named_attribute(dialect: str, attributes: dict[str, str], expected: bool) -> None:
    assert matches(**{dialect: attributes}) is expected
    assert matches(**{"not": {dialect: attributes}}) is not expected


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_all_and_any_mean_what_they_say(truths: list[bool]) -> None:
    parts = [YES if truth else NO for truth in truths]
    assert matches(all=parts) is all(truths)
    assert matches(any=parts) is any(truths)
    assert matches_all([Filter.model_validate(part) for part in parts], EVENT) is all(truths)


def test_expressions_nest() -> None:
    assert matches(all=[{"any": [NO, {"not": NO}]}, {"prefix": {"type": "com."}}])
    assert not matches(**{"not": {"all": [YES, {"not": NO}]}})


def test_no_filters_let_everything_through() -> None:
    assert matches_all([], EVENT)
    assert matches_exactly({}, EVENT)


def test_an_empty_attribute_stands_for_any_value_that_is_there() -> None:
    assert matches_exactly({"type": ""}, EVENT)
    assert not matches_exactly({"absent": ""}, EVENT)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({}, "exactly one of"),
        ({**YES, "prefix": {"type": "a"}}, "exactly one of"),
        ({"cesql": "type = 'a'"}, "CESQL is not supported; use exact"),
        ({"any": []}, "at least 1 item"),
        ({"exact": {}}, "at least 1 item"),
        ({"exact": {"type": ""}}, "at least 1 character"),
        ({"exact": {"Type": "a"}}, "should match pattern"),
        ({"not": {"all": [{"like": {"a": "b"}}]}}, "not permitted"),
    ],
)
def test_an_expression_that_means_nothing_is_refused(given_: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Filter.model_validate(given_)

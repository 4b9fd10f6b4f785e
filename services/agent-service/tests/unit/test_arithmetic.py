import contextlib
import operator
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.adapters.arithmetic import MAX_LENGTH, calculate

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12 * (3+4)", "84"),
        ("0.1 + 0.2", "0.3"),
        ("2 ** 10 - 1", "1023"),
        ("2^10", "1024"),
        ("-2 ** 2", "-4"),
        ("2 ** -1", "0.5"),
        ("2 ** 3 ** 2", "512"),
        ("7 // 2 + 7 % 4", "6"),
        ("10 / 4", "2.5"),
        ("1 - - 1", "2"),
        (".5 * 4", "2"),
        ("3 \u00d7 4 \u00f7 6", "2"),
        ("100", "100"),
        ("1/3", "0.3333333333333333333333333333"),
        ("10 ** 30", "1E+30"),
        ("0 * -5", "0"),
        ("  ( 1 )  ", "1"),
    ],
)
def test_expressions_have_the_value_that_people_expect(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("1 / 0", "has no value that can be shown (DivisionByZero)"),
        ("9 ** 9 ** 9 ** 9", "has no value that can be shown (Overflow)"),
        ("(-1) ** 0.5", "has no value that can be shown (InvalidOperation)"),
        ("1 +", "the expression ended"),
        ("", "the expression ended"),
        ("(1", "expected a closing parenthesis"),
        ("1 2", "expected an operator before '2'"),
        ("1 * / 2", "expected a number, and found '/'"),
        ("__import__('os')", "expected numbers, + - * / // % ** and parentheses, and found '__import__'"),
        ("1 if 1 else 2", "and found 'if 1 else'"),
        ("(" * 60 + "1" + ")" * 60, "nested 30 deep"),
        ("1+" * MAX_LENGTH + "1", f"may have {MAX_LENGTH} characters"),
        ("9" * 60, "expected an operator"),
    ],
)
def test_invalid_expression_is_refused_in_words(expression: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"expected|has no value|may ") as refused:
        calculate(expression)

    assert says in str(refused.value)


@given(st.text(alphabet="0123456789.+-*/%^() ", max_size=MAX_LENGTH))
def test_nothing_that_fits_takes_long(expression: str) -> None:
    began = time.process_time()
    with contextlib.suppress(ValueError):
        calculate(expression)
    assert time.process_time() - began < 0.5


numbers = st.integers(0, 999).map(lambda n: (str(n), Fraction(n)))
trees = st.recursive(
    numbers,
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda made: (f"({made[0][0]} {made[1]} {made[2][0]})", OPERATORS[made[1]](made[0][1], made[2][1]))
    ),
    max_leaves=6,
)


@given(trees)
def test_whole_numbers_are_exact(tree: tuple[str, Fraction]) -> None:
    expression, value = tree

    assert Fraction(calculate(expression)) == value

"""Arithmetic for the calculator tool, with its own grammar, so that text of a model is never run as code.

    sum     = product { ("+" | "-") product }
    product = signed { ("*" | "/" | "//" | "%") signed }
    signed  = ["+" | "-"] signed | power
    power   = atom ["**" signed]
    atom    = number | "(" sum ")"

Decimal gives the results that people expect (0.1 + 0.2 = 0.3), and its context bounds the size of every result.
"""

import operator
import re
from collections.abc import Callable
from decimal import Context, Decimal, DecimalException, DivisionByZero, InvalidOperation, Overflow, localcontext

MAX_LENGTH = 200
MAX_DEPTH = 30

_TOKEN = re.compile(r"\s*(?:(\d{1,40}(?:\.\d{1,40})?|\.\d{1,40})|(\*\*|//|[-+*/%()]))")
_TYPED = str.maketrans({"^": "**", "\u00d7": "*", "\u00f7": "/", "\u2212": "-"})
"""Other signs that people write for an operator."""

_BOUNDS = Context(prec=28, Emax=400, Emin=-400, traps=[InvalidOperation, DivisionByZero, Overflow])
_SUM: dict[str, Callable[[Decimal, Decimal], Decimal]] = {"+": operator.add, "-": operator.sub}
_PRODUCT: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}


def calculate(expression: str) -> str:
    """Return the value of an expression of numbers, + - * / // % ** and parentheses.

    Raises:
        ValueError: the text is no expression, has no value, or is too large; the message says which.
    """
    if len(expression) > MAX_LENGTH:
        msg = f"an expression may have {MAX_LENGTH} characters, and this has {len(expression)}"
        raise ValueError(msg)
    with localcontext(_BOUNDS):
        try:
            value = _Reader(_tokens(expression)).value()
        except DecimalException as error:
            msg = f"{expression.strip()} has no value that can be shown ({type(error).__name__})"
            raise ValueError(msg) from error
        return _shown(value)


def _tokens(expression: str) -> list[str]:
    tokens, position, text = [], 0, expression.translate(_TYPED).rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            found = text[position : position + 10].strip()
            msg = f"expected numbers, + - * / // % ** and parentheses, and found {found!r}"
            raise ValueError(msg)
        tokens.append(match[1] or match[2])
        position = match.end()
    return tokens


def _shown(value: Decimal) -> str:
    shortest = (value + 0).normalize()  # adding zero turns minus zero into zero
    return format(shortest, "f" if -12 <= shortest.adjusted() <= 27 else "E")


class _Reader:
    """Reads tokens from left to right, one method for each line of the grammar."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0

    def value(self) -> Decimal:
        value = self._sum()
        if self._next() is not None:
            msg = f"expected an operator before {self._next()!r}"
            raise ValueError(msg)
        return value

    def _next(self) -> str | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def _take(self) -> str:
        token = self._next()
        if token is None:
            msg = "expected a number, and the expression ended"
            raise ValueError(msg)
        self._position += 1
        return token

    def _sum(self) -> Decimal:
        value = self._product()
        while (sign := self._next()) in _SUM:
            self._take()
            value = _SUM[sign](value, self._product())
        return value

    def _product(self) -> Decimal:
        value = self._signed()
        while (sign := self._next()) in _PRODUCT:
            self._take()
            value = _PRODUCT[sign](value, self._signed())
        return value

    def _signed(self) -> Decimal:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            msg = f"an expression may be nested {MAX_DEPTH} deep"
            raise ValueError(msg)
        if self._next() not in _SUM:
            value = self._power()
        else:
            value = -self._signed() if self._take() == "-" else +self._signed()
        self._depth -= 1
        return value

    def _power(self) -> Decimal:
        value = self._atom()
        if self._next() != "**":
            return value
        self._take()
        return value ** self._signed()

    def _atom(self) -> Decimal:
        token = self._take()
        if token == "(":  # noqa: S105 - a parenthesis
            value = self._sum()
            if self._next() != ")":
                msg = "expected a closing parenthesis"
                raise ValueError(msg)
            self._take()
            return value
        if not (token[0].isdigit() or token[0] == "."):
            msg = f"expected a number, and found {token!r}"
            raise ValueError(msg)
        return Decimal(token)

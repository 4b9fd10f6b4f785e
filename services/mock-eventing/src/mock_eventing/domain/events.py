"""A CloudEvent as version 1.0 has it, and what makes one valid, whatever mode it came in.

Attributes are kept in the string form that the specification gives to each type, and are passed on letter by letter:
a time is checked and never printed anew. Data is bytes that nobody here looks at.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mock_eventing.errors import Malformed

REQUIRED: Final = ("specversion", "id", "source", "type")
VERSION: Final = "1.0"
MAX_ATTRIBUTES: Final = 16_384
"""Bytes of all attributes of one event: they become headers, which receivers bound."""

_NAME: Final = re.compile(r"[a-z0-9]+")
_NEVER: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Control characters, surrogates and non-characters, which no attribute may hold."""
_URI: Final = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+"
_DATE: Final = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_HOURS: Final = r"([01]\d|2[0-3]):[0-5]\d"
_SHAPES: Final = {
    name: (re.compile(shape, re.ASCII), what)
    for name, shape, what in (
        ("source", f"({_URI})?", "is no URI reference (RFC 3986)"),
        ("dataschema", f"[A-Za-z][A-Za-z0-9+.-]*:{_URI}", "is no absolute URI (RFC 3986)"),
        ("subject", r"[\S\s]+", "is empty; leave it out instead"),
        (
            "time",
            f"{_DATE}[Tt]{_HOURS}:([0-5]\\d|60)(\\.\\d+)?([Zz]|[+-]{_HOURS})",
            "is no time as RFC 3339 has it, such as 2026-11-21T15:04:05Z",
        ),
        (
            "datacontenttype",
            r"[\w!#$&^.+-]+/[\w!#$&^.+-]+\s*(;[\t -~]*)?",
            "is no media type (RFC 2046), such as application/json",
        ),
        ("data", "(?!)", "is no name that an attribute may have"),
    )
}
"""What the value of an attribute looks like, and what is said of one that does not."""


@dataclass(frozen=True, slots=True)
class Event:
    """A valid event.

    Attributes:
        attributes: `datacontenttype` among them, each in its canonical string form.
        data: as it was sent; None where the event has none.
    """

    attributes: Mapping[str, str]
    data: bytes | None

    @property
    def size(self) -> int:
        return sum(len(name) + len(value) for name, value in self.attributes.items()) + len(self.data or b"")

    def with_attributes(self, more: Mapping[str, str]) -> "Event":
        return Event({**self.attributes, **more}, self.data)


def checked(attributes: Mapping[str, str], data: bytes | None, where: str = "") -> Event:
    """Return an event, if that is what it is.

    Args:
        attributes: as strings, by name.
        data: its data.
        where: what stands before an attribute's name in a fault, such as `ce-` for a header.

    Raises:
        Malformed: with every fault.
    """
    faults = tuple((f"{where}{name}", what) for name, what in _faults(attributes))
    if faults:
        raise Malformed(*faults)
    return Event(dict(attributes), data)


def _faults(attributes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in REQUIRED:
        if not attributes.get(name):
            yield name, "is required and missing" if name not in attributes else "is empty; every event has one"
    if (version := attributes.get("specversion")) and version != VERSION:
        yield "specversion", f"is {version[:20]!r}; expected {VERSION!r}"
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            yield name, "is no attribute's name: expected lower-case letters a to z and digits only"
        elif unfit := _unfit(name, value):
            yield name, unfit
    size = sum(len(name) + len(value.encode("utf-8", "replace")) for name, value in attributes.items())
    if size > MAX_ATTRIBUTES:
        yield "attributes", f"have {size} bytes together; at most {MAX_ATTRIBUTES}"


def _unfit(name: str, value: str) -> str:
    """Say what is wrong with a value; nothing where it is fit."""
    if _NEVER.search(value):
        return "holds a control character or another that no attribute may have"
    shape = _SHAPES.get(name)
    return "" if shape is None or shape[0].fullmatch(value) else shape[1]

"""A CloudEvent of version 1.0, and the validation that all modes share.

Attributes stay in the string form that the specification defines for each type, and are passed on unchanged: a time is
checked and never reformatted. Data is bytes that the broker does not interpret.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mock_eventing.errors import Fault, Malformed

REQUIRED: Final = ("specversion", "id", "source", "type")
VERSION: Final = "1.0"
MAX_ATTRIBUTES: Final = 16_384
"""Bytes of all attributes of one event; they become headers, whose size receivers limit."""

_NAME: Final = re.compile(r"[a-z0-9]+")
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Control characters, surrogates and non-characters, which the specification forbids in attributes."""
_URI: Final = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+"
_DATE: Final = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_HOURS: Final = r"([01]\d|2[0-3]):[0-5]\d"
_FORMATS: Final = {
    name: (re.compile(pattern, re.ASCII), fault)
    for name, pattern, fault in (
        ("source", f"({_URI})?", "is not a URI reference (RFC 3986)"),
        ("dataschema", f"[A-Za-z][A-Za-z0-9+.-]*:{_URI}", "is not an absolute URI (RFC 3986)"),
        ("subject", r"[\S\s]+", "is empty; leave it out instead"),
        (
            "time",
            f"{_DATE}[Tt]{_HOURS}:([0-5]\\d|60)(\\.\\d+)?([Zz]|[+-]{_HOURS})",
            "is not an RFC 3339 time, such as 2026-11-21T15:04:05Z",
        ),
        (
            "datacontenttype",
            r"[\w!#$&^.+-]+/[\w!#$&^.+-]+\s*(;[\t -~]*)?",
            "is not a media type (RFC 2046), such as application/json",
        ),
        ("data", "(?!)", "is not allowed as an attribute's name"),
    )
}
"""The pattern of an attribute's value, and the fault of a value that does not match."""


@dataclass(frozen=True, slots=True)
class Event:
    """A valid event.

    Attributes:
        attributes: the context attributes with `datacontenttype`, each in its canonical string form.
        data: the bytes as they were sent; None where the event has no data.
    """

    attributes: Mapping[str, str]
    data: bytes | None

    @property
    def size(self) -> int:
        return sum(len(name) + len(value) for name, value in self.attributes.items()) + len(self.data or b"")

    def with_attributes(self, more: Mapping[str, str]) -> "Event":
        return Event({**self.attributes, **more}, self.data)


def checked(attributes: Mapping[str, str], data: bytes | None, prefix: str = "") -> Event:
    """Return a valid event of the attributes and the data.

    Args:
        attributes: the attributes as strings, by name.
        data: the event's data.
        prefix: the text before an attribute's name in a fault, such as `ce-` for a header.

    Raises:
        Malformed: the event is not valid; the error has every fault.
    """
    faults = [Fault(f"{prefix}{fault.pointer}", fault.detail) for fault in _faults(attributes)]
    if faults:
        raise Malformed(*faults)
    return Event(dict(attributes), data)


def _faults(attributes: Mapping[str, str]) -> Iterator[Fault]:
    for name in REQUIRED:
        if not attributes.get(name):
            yield Fault(name, "is required and missing" if name not in attributes else "is empty; expected a value")
    if (version := attributes.get("specversion")) and version != VERSION:
        yield Fault("specversion", f"is {version[:20]!r}; expected {VERSION!r}")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            yield Fault(name, "is not an attribute's name: expected lower-case letters a to z and digits only")
        elif fault := _fault_of_value(name, value):
            yield Fault(name, fault)
    size = sum(len(name) + len(value.encode("utf-8", "replace")) for name, value in attributes.items())
    if size > MAX_ATTRIBUTES:
        yield Fault("attributes", f"have {size} bytes together; at most {MAX_ATTRIBUTES} are allowed")


def _fault_of_value(name: str, value: str) -> str:
    """Return the fault of an attribute's value; an empty text where it has none."""
    if _FORBIDDEN.search(value):
        return "holds a control character, or another character that is forbidden in attributes"
    if name not in _FORMATS:
        return ""
    pattern, fault = _FORMATS[name]
    return "" if pattern.fullmatch(value) else fault

"""Structured and batched mode of the CloudEvents HTTP binding: one event or a batch in the JSON format.

The text of the member `data` is passed on unchanged, so that its numbers and spaces reach subscribers as they were
written. The CloudEvents SDK would parse the data and format it again.
"""

import binascii
import json
import re
from base64 import b64decode, b64encode
from typing import Final, NoReturn

from pydantic_core import to_json

from mock_eventing.domain.events import Event, checked
from mock_eventing.errors import Fault, Malformed

STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"

_BLANK: Final = re.compile(r"[ \t\n\r]*")
_JSON: Final = re.compile(r"[^;]*[/+]json\s*(;.*)?", re.IGNORECASE | re.DOTALL)
_CORE: Final = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"})
_INTEGERS: Final = range(-(2**31), 2**31)

type Members = dict[str, tuple[object, str]]
"""The members of a JSON object: for each name the value, and the text that the value was parsed from."""


def read_structured(body: bytes) -> Event:
    """Return the event in a body.

    Raises:
        Malformed: the body is not JSON, or `checked` refuses the event.
    """
    cursor = _Cursor(body)
    members = cursor.members()
    cursor.end()
    return _event(members, "/")


def read_batch(body: bytes) -> list[Event]:
    """Return the events of a batch, which may be empty.

    Raises:
        Malformed: as in `read_structured`, for any event of the batch.
    """
    cursor = _Cursor(body)
    cursor.expect("[", "an array of events")
    found: list[Members] = []
    if not cursor.take("]"):
        found.append(cursor.members())
        while cursor.take(","):
            found.append(cursor.members())
        cursor.expect("]")
    cursor.end()
    return [_event(members, f"/{number}/") for number, members in enumerate(found)]


def write_structured(event: Event, *, one_line: bool = False) -> bytes:
    """Return an event in the JSON format: JSON data as it is, and other data in base64.

    Args:
        event: the event.
        one_line: whether JSON data with line breaks is in base64 too.
    """
    attributes = to_json(dict(event.attributes))
    if event.data is None:
        return attributes
    inline = _JSON.fullmatch(event.attributes.get("datacontenttype", "")) and not (one_line and b"\n" in event.data)
    if inline and _is_json(event.data):
        return attributes[:-1] + b',"data":' + event.data + b"}"
    return attributes[:-1] + b',"data_base64":"' + b64encode(event.data) + b'"}'


class _Cursor:
    """A position in a JSON text; each method that reads a token also skips the blanks behind it."""

    def __init__(self, body: bytes) -> None:
        try:
            self._text = body.decode()
        except UnicodeDecodeError as error:
            raise Malformed(Fault("/", f"byte {error.start} is not UTF-8")) from None
        self._at = 0
        self._skip(0)

    def members(self) -> Members:
        """Read an object."""
        self.expect("{", "an object")
        found: Members = {}
        if self.take("}"):
            return found
        while True:
            name, _ = self.value()
            if not isinstance(name, str) or name in found:
                raise self._unexpected("the name of a member that the object does not have yet")
            self.expect(":")
            found[name] = self.value()
            if not self.take(","):
                break
        self.expect("}")
        return found

    def take(self, character: str) -> bool:
        """Read a character if it is the next one, and return whether it was."""
        here = self._text.startswith(character, self._at)
        if here:
            self._skip(self._at + 1)
        return here

    def expect(self, character: str, expected: str = "") -> None:
        if not self.take(character):
            raise self._unexpected(expected or repr(character))

    def end(self) -> None:
        if self._at != len(self._text):
            raise self._unexpected("nothing more")

    def value(self) -> tuple[object, str]:
        start = self._at
        try:
            value, end = _DECODER.raw_decode(self._text, start)
        except (ValueError, RecursionError):
            raise self._unexpected("a JSON value (RFC 8259) that is not nested too deep") from None
        self._skip(end)
        return value, self._text[start:end]

    def _skip(self, start: int) -> None:
        blank = _BLANK.match(self._text, start)
        self._at = blank.end() if blank else start

    def _unexpected(self, expected: str) -> Malformed:
        return Malformed(Fault("/", f"character {self._at} is not as expected; expected {expected}"))


def _event(members: Members, pointer: str) -> Event:
    data = _data(members, pointer)
    attributes = {
        name: _canonical(pointer + name, value, only_text=name in _CORE)
        for name, (value, _) in members.items()
        if value is not None and name not in {"data", "data_base64"}
    }
    if data is not None and "data" in members:
        attributes.setdefault("datacontenttype", "application/json")
    return checked(attributes, data, pointer)


def _data(members: Members, pointer: str) -> bytes | None:
    data, text = members.get("data", (None, ""))
    encoded, _ = members.get("data_base64", (None, ""))
    if encoded is not None:
        if data is not None or not isinstance(encoded, str):
            raise Malformed(
                Fault(f"{pointer}data_base64", "is not a string, or there is a member `data` too; expected one of both")
            )
        try:
            return b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise Malformed(Fault(f"{pointer}data_base64", "is not base64 (RFC 4648)")) from None
    if data is None:
        return None
    media_type, _ = members.get("datacontenttype", (None, ""))
    if isinstance(data, str) and isinstance(media_type, str) and not _JSON.fullmatch(media_type):
        return _utf_8(data, pointer)
    return text.encode()


def _utf_8(text: str, pointer: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Malformed(Fault(f"{pointer}data", "holds half of a surrogate pair, which is not text")) from None


def _canonical(pointer: str, value: object, *, only_text: bool) -> str:
    """Return an attribute in the canonical string form of its type: string, boolean or 32-bit integer.

    Those that the specification itself defines are all strings in JSON.
    """
    if isinstance(value, str):
        return value
    if only_text:
        raise Malformed(Fault(pointer, "has another type; expected a string"))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value in _INTEGERS:
        return str(value)
    raise Malformed(Fault(pointer, "has another type; expected a string, a boolean or a 32-bit integer"))


def _is_json(data: bytes) -> bool:
    try:
        cursor = _Cursor(data)
        cursor.value()
        cursor.end()
    except Malformed:
        return False
    return True


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= 11 else float(digits)  # int() refuses very long texts


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_constant=_refuse)

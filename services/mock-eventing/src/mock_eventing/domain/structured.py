"""Structured and batched mode: an event, or several, in CloudEvents' JSON format.

The member `data` is cut out of the text as it stands, so that the numbers and spaces in it reach subscribers as they
were written; the SDK would parse it and print it anew.
"""

import binascii
import json
import re
from base64 import b64decode, b64encode
from typing import Final, NoReturn

from pydantic_core import to_json

from mock_eventing.domain.events import Event, checked
from mock_eventing.errors import Malformed

STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"

_BLANK: Final = re.compile(r"[ \t\n\r]*")
_JSON: Final = re.compile(r"[^;]*[/+]json\s*(;.*)?", re.IGNORECASE | re.DOTALL)
_INTEGERS: Final = range(-(2**31), 2**31)

type Members = dict[str, tuple[object, str]]
"""The members of an object: each value, and the text it was read from."""


def read_structured(body: bytes) -> Event:
    """Return the event in a body.

    Raises:
        Malformed: it is not JSON, or see `checked`.
    """
    cursor = _Cursor(body)
    members = cursor.members()
    cursor.end()
    return _event(members, "/")


def read_batch(body: bytes) -> list[Event]:
    """Return the events in a body, of which there may be none.

    Raises:
        Malformed: as `read_structured`; one event that is wrong is enough.
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
    """Return an event as JSON: with its data as JSON where it is that, and in base64 otherwise.

    With `one_line` also data that has lines is in base64.
    """
    attributes = to_json(dict(event.attributes))
    if event.data is None:
        return attributes
    inline = _JSON.fullmatch(event.attributes.get("datacontenttype", "")) and not (one_line and b"\n" in event.data)
    if inline and _is_json(event.data):
        return attributes[:-1] + b',"data":' + event.data + b"}"
    return attributes[:-1] + b',"data_base64":"' + b64encode(event.data) + b'"}'


class _Cursor:
    """A place in a JSON text; whatever is read, the blanks behind it are skipped."""

    def __init__(self, body: bytes) -> None:
        try:
            self._text = body.decode()
        except UnicodeDecodeError as error:
            raise Malformed(("/", f"byte {error.start} is not UTF-8")) from None
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
                raise self._wrong("a member's name, each once")
            self.expect(":")
            found[name] = self.value()
            if not self.take(","):
                break
        self.expect("}")
        return found

    def take(self, character: str) -> bool:
        """Go past a character, if it is the next one."""
        here = self._text.startswith(character, self._at)
        if here:
            self._skip(self._at + 1)
        return here

    def expect(self, character: str, what: str = "") -> None:
        if not self.take(character):
            raise self._wrong(what or repr(character))

    def end(self) -> None:
        if self._at != len(self._text):
            raise self._wrong("nothing more")

    def value(self) -> tuple[object, str]:
        start = self._at
        try:
            value, end = _DECODER.raw_decode(self._text, start)
        except (ValueError, RecursionError):
            raise self._wrong("a JSON value, as RFC 8259 has it and not too deep") from None
        self._skip(end)
        return value, self._text[start:end]

    def _skip(self, start: int) -> None:
        blank = _BLANK.match(self._text, start)
        self._at = blank.end() if blank else start

    def _wrong(self, expected: str) -> Malformed:
        return Malformed(("/", f"at character {self._at} something else was found; expected {expected}"))


def _event(members: Members, where: str) -> Event:
    data = _data(members, where)
    attributes = {
        name: _canonical(where + name, value)
        for name, (value, _) in members.items()
        if value is not None and name not in {"data", "data_base64"}
    }
    if data is not None and "data" in members:
        attributes.setdefault("datacontenttype", "application/json")
    return checked(attributes, data, where)


def _data(members: Members, where: str) -> bytes | None:
    data, text = members.get("data", (None, ""))
    encoded, _ = members.get("data_base64", (None, ""))
    if encoded is not None:
        if data is not None or not isinstance(encoded, str):
            raise Malformed((f"{where}data_base64", "expected a string, and no data beside it"))
        try:
            return b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise Malformed((f"{where}data_base64", "is not base64 (RFC 4648)")) from None
    if data is None:
        return None
    media_type, _ = members.get("datacontenttype", (None, ""))
    if isinstance(data, str) and isinstance(media_type, str) and not _JSON.fullmatch(media_type):
        return _utf_8(data, where)
    return text.encode()


def _utf_8(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Malformed((f"{where}data", "holds half of a surrogate pair, which is no text")) from None


def _canonical(where: str, value: object) -> str:
    """Return an attribute in the string form of its type: a string, a boolean or a 32-bit integer."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value in _INTEGERS:
        return str(value)
    raise Malformed((where, "expected a string, a boolean or an integer of 32 bits"))


def _is_json(data: bytes) -> bool:
    try:
        cursor = _Cursor(data)
        cursor.value()
        cursor.end()
    except Malformed:
        return False
    return True


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= 11 else float(digits)  # Python refuses to read very long ones


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_constant=_refuse)

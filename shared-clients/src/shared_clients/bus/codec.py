"""How a message lies in a Kafka record (CloudEvents 1.0, Kafka protocol binding), and what all bindings share.

Written by the SDK's own binding, read by hand: the SDK refuses what is malformed, gives an event without an id a random
one, and turns times and data into objects, while the inbox needs every record, whoever wrote it, with the attributes
and the bytes that were in it, so that it can say what is wrong with them and keep them.
"""

import binascii
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import jiter
from cloudevents.core.bindings.common import CONTENT_TYPE_HEADER, DATACONTENTTYPE_ATTR
from cloudevents.core.bindings.kafka import CE_PREFIX, to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic_core import to_json

from shared_clients.bus.port import Message
from shared_clients.errors import Permanent

MAX_MESSAGE: Final = 1_000_000
"""Bytes of key, attributes and data in one message, on every transport; a Kafka broker's default is a little more."""

FORMAT: Final = JSONFormat()
STRUCTURED: Final = JSONFormat.CONTENT_TYPE


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record as aiokafka takes it."""

    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes | None], ...]


class Verbatim(CloudEvent):
    """An event whose attributes are written as they are: nothing added, no time parsed and printed anew."""

    def __init__(self, attributes: Mapping[str, str], data: bytes) -> None:  # never the parent's: it changes them
        self._attributes = dict(attributes)
        self._data = data


def check_size(message: Message) -> None:
    """Refuse what no transport takes.

    Raises:
        Permanent: the message is larger than `MAX_MESSAGE`.
    """
    attributes = sum(len(name) + len(value.encode()) for name, value in message.attributes.items())
    size = len(message.key.encode()) + attributes + len(message.data)
    if size > MAX_MESSAGE:
        raise Permanent(f"a message for {message.topic} has {size} bytes; the bus takes at most {MAX_MESSAGE}")


def encode(message: Message) -> Record:
    """Return the record of a message."""
    written = to_binary(Verbatim(message.attributes, message.data), FORMAT)
    return Record(message.key.encode() or None, written.value, tuple(written.headers.items()))


def decode(topic: str, record: Record, origin: str) -> Message:
    """Return the message in a record, whatever is in it.

    A record that is no CloudEvent becomes a message with its whole value as data; its headers are kept under names that
    no attribute can have (`header:<name>`), for whoever looks at the dead letter.
    """
    found = {text_of(name.lower()): text_of(value) for name, value in record.headers}
    attributes = {name.removeprefix(CE_PREFIX): value for name, value in found.items() if name.startswith(CE_PREFIX)}
    key, data, content_type = text_of(record.key), record.value, found.get(CONTENT_TYPE_HEADER, "")
    if media_type(content_type) == STRUCTURED:
        attributes, data = structured(data)
    elif attributes and CONTENT_TYPE_HEADER in found:
        attributes[DATACONTENTTYPE_ATTR] = content_type
    if not attributes:
        attributes = {f"header:{name}": value for name, value in found.items()}
    return Message(topic, key, attributes, data, origin)


def media_type(content_type: str) -> str:
    """Return what a Content-Type says without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def structured(value: bytes) -> tuple[dict[str, str], bytes]:
    """Return attributes and data of an event in JSON; no attributes when it is not one."""
    try:
        return in_json(parsed(value), value)
    except ValueError:
        return {}, value


def parsed(value: bytes) -> object:
    """Parse JSON in which no member comes twice: two readers might believe different ones.

    Raises:
        ValueError: it is not.
    """
    found: object = jiter.from_json(value, allow_inf_nan=False, catch_duplicate_keys=True)
    return found


def in_json(event: object, value: bytes) -> tuple[dict[str, str], bytes]:
    """Return attributes and data of a parsed event; what is none, or has unclear data, is all `value` and no event."""
    if not isinstance(event, dict) or {"data", "data_base64"} <= event.keys():
        return {}, value
    data, encoded = event.pop("data", None), event.pop("data_base64", None)
    attributes = dict(_strings(event.items()))
    if isinstance(encoded, str):
        try:
            return attributes, b64decode(encoded, validate=True)
        except binascii.Error:
            return {}, value
    if isinstance(data, str) and "json" not in attributes.get(DATACONTENTTYPE_ATTR, "json"):
        return attributes, data.encode()
    return attributes, b"" if data is None else to_json(data)


def text_of(raw: str | bytes | None) -> str:
    """Return text that Postgres can hold, with NUL and whatever is not UTF-8 shown as escapes."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw or ""
    return text.replace("\x00", "\\x00")


def _strings(items: Iterable[tuple[str, object]]) -> Iterable[tuple[str, str]]:
    """Give attributes in the string form that CloudEvents has for each JSON type."""
    for name, value in items:
        if value is not None:
            yield text_of(name), text_of(value if isinstance(value, str) else to_json(value))

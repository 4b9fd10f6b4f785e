"""Messages as Kafka records (CloudEvents 1.0, Kafka protocol binding), and code that all bindings share.

The SDK's own binding writes the records, and this module reads them. The SDK refuses malformed events, gives an event
without an id a random one, and turns times and data into objects. The inbox needs every record of every producer, with
its original attributes and bytes, so that it can keep a faulty one and say what is wrong with it.
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


class UnvalidatedEvent(CloudEvent):
    """An event that is written exactly as given; the SDK would add attributes and format times anew."""

    def __init__(self, attributes: Mapping[str, str], data: bytes) -> None:  # the parent's would change both
        self._attributes = dict(attributes)
        self._data = data


def check_size(message: Message) -> None:
    """Refuse a message that is too large for the transports.

    Raises:
        Permanent: the message is larger than `MAX_MESSAGE`.
    """
    attributes = sum(len(name) + len(value.encode()) for name, value in message.attributes.items())
    size = len(message.key.encode()) + attributes + len(message.data)
    if size > MAX_MESSAGE:
        raise Permanent(f"a message for {message.topic} has {size} bytes; the bus takes at most {MAX_MESSAGE}")


def encode(message: Message) -> Record:
    """Return the record of a message."""
    record = to_binary(UnvalidatedEvent(message.attributes, message.data), FORMAT)
    return Record(message.key.encode() or None, record.value, tuple(record.headers.items()))


def decode(topic: str, record: Record, origin: str) -> Message:
    """Return the message in a record, even where the record is no CloudEvent.

    A record that is no CloudEvent becomes a message with its whole value as data. Its headers are kept under names that
    no attribute can have (`header:<name>`), so that an operator sees them in the dead letter.
    """
    headers = {storable_text(name.lower()): storable_text(value) for name, value in record.headers}
    attributes = {name.removeprefix(CE_PREFIX): value for name, value in headers.items() if name.startswith(CE_PREFIX)}
    key, data, content_type = storable_text(record.key), record.value, headers.get(CONTENT_TYPE_HEADER, "")
    if media_type(content_type) == STRUCTURED:
        attributes, data = decode_structured(data)
    elif attributes and CONTENT_TYPE_HEADER in headers:
        attributes[DATACONTENTTYPE_ATTR] = content_type
    if not attributes:
        attributes = {f"header:{name}": value for name, value in headers.items()}
    return Message(topic, key, attributes, data, origin)


def media_type(content_type: str) -> str:
    """Return the media type in a Content-Type, in lower case and without parameters."""
    return content_type.partition(";")[0].strip().lower()


def decode_structured(value: bytes) -> tuple[dict[str, str], bytes]:
    """Return the attributes and the data of an event in JSON; see `event_from_json`."""
    try:
        return event_from_json(parse_json(value), value)
    except ValueError:
        return {}, value


def parse_json(value: bytes) -> object:
    """Parse JSON and refuse duplicate members, because two readers may choose different ones.

    Raises:
        ValueError: it is not JSON, or has a duplicate member.
    """
    parsed: object = jiter.from_json(value, allow_inf_nan=False, catch_duplicate_keys=True)
    return parsed


def event_from_json(event: object, value: bytes) -> tuple[dict[str, str], bytes]:
    """Return the attributes and the data of a parsed event.

    A value that is no event, or whose data is ambiguous, gives no attributes, and the whole `value` as data.
    """
    if not isinstance(event, dict) or {"data", "data_base64"} <= event.keys():
        return {}, value
    data, encoded = event.pop("data", None), event.pop("data_base64", None)
    attributes = dict(_as_strings(event.items()))
    if isinstance(encoded, str):
        try:
            return attributes, b64decode(encoded, validate=True)
        except binascii.Error:
            return {}, value
    if isinstance(data, str) and "json" not in attributes.get(DATACONTENTTYPE_ATTR, "json"):
        return attributes, data.encode()
    return attributes, b"" if data is None else to_json(data)


def storable_text(raw: str | bytes | None) -> str:
    """Return text that Postgres can store: NUL and bytes that are not UTF-8 become escapes."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw or ""
    return text.replace("\x00", "\\x00")


def _as_strings(items: Iterable[tuple[str, object]]) -> Iterable[tuple[str, str]]:
    """Yield attributes in the string form that CloudEvents defines for each JSON type."""
    for name, value in items:
        if value is not None:
            yield storable_text(name), storable_text(value if isinstance(value, str) else to_json(value))

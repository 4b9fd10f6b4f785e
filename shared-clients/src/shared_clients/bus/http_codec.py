"""Messages as HTTP requests (CloudEvents 1.0, HTTP protocol binding).

The SDK's own binding writes requests in binary mode. This module reads them in all three modes (binary, structured,
batched), for the reasons that `codec` gives. It refuses no request: a request that is no event becomes a message that
shows its headers and its body.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from cloudevents.core.bindings.common import CONTENT_TYPE_HEADER, DATACONTENTTYPE_ATTR
from cloudevents.core.bindings.http import CE_PREFIX, to_binary
from pydantic_core import to_json

from shared_clients.bus.codec import (
    FORMAT,
    STRUCTURED,
    UnvalidatedEvent,
    decode_structured,
    event_from_json,
    media_type,
    parse_json,
    storable_text,
)
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent
from shared_models.catalog import topic_of

MAX_BODY: Final = 1_400_000
"""Bytes of a request: the largest message, with its data in base64."""

_BATCH: Final = "application/cloudevents-batch+json"
_ANY_FORMAT: Final = "application/cloudevents"
_KEY: Final = "partitionkey"
_NAME: Final = re.compile(r"[a-z0-9]+")
_MEDIA: Final = re.compile(r"[\x20-\x7e]*")
_QUOTED: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)


def encode_post(message: Message) -> tuple[Mapping[str, str], bytes]:
    """Return the headers and the body of a message in binary mode; its key is the attribute `partitionkey`.

    Raises:
        Permanent: HTTP cannot carry one of its attributes.
    """
    attributes = {**message.attributes, **({_KEY: message.key} if message.key else {})}
    media = attributes.get(DATACONTENTTYPE_ATTR, "")
    if invalid := [name for name in attributes if not _NAME.fullmatch(name)]:
        raise Permanent(
            f"a message for {message.topic} has an attribute name that CloudEvents does not allow: {invalid[0][:40]!r}"
        )
    if not _MEDIA.fullmatch(media) or media_type(media).startswith(_ANY_FORMAT):
        raise Permanent(f"a message for {message.topic} has a datacontenttype that HTTP cannot carry: {media[:80]!r}")
    request = to_binary(UnvalidatedEvent(attributes, message.data), FORMAT)
    return request.headers, request.body


def decode_post(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> list[Message]:
    """Return the messages of a request; a request that is no event becomes a message too.

    Only a batch can hold none or several.

    Args:
        headers: as ASGI gives them. Values of a repeated header are joined by a comma, as HTTP defines, so a repeated
            `ce-type` makes no valid type.
        body: the whole body.
    """
    values: dict[str, list[bytes]] = defaultdict(list)
    for name, value in headers:
        values[storable_text(name.lower())].append(value)
    joined = {name: b", ".join(parts) for name, parts in values.items()}
    content_type = storable_text(joined.get(CONTENT_TYPE_HEADER))
    media = media_type(content_type)
    if media == _BATCH and (events := _batch(body)) is not None:
        return [_message(attributes, data) if attributes else _malformed(joined, data) for attributes, data in events]
    if media == STRUCTURED:
        attributes, data = decode_structured(body)
    elif media.startswith(_ANY_FORMAT):
        attributes, data = {}, body
    else:
        attributes, data = _binary_attributes(joined, content_type), body
    return [_message(attributes, data) if attributes else _malformed(joined, body)]


def _binary_attributes(headers: Mapping[str, bytes], content_type: str) -> dict[str, str]:
    attributes = {
        name.removeprefix(CE_PREFIX): _header_value(value)
        for name, value in headers.items()
        if name.startswith(CE_PREFIX)
    }
    attributes.pop(DATACONTENTTYPE_ATTR, None)  # binary mode has this attribute in Content-Type
    if attributes and content_type:
        attributes[DATACONTENTTYPE_ATTR] = content_type
    return attributes


def _header_value(raw: bytes) -> str:
    """Decode a header as the binding defines: quotes and backslashes first, then percent signs, then UTF-8."""
    if quoted := _QUOTED.fullmatch(raw):
        raw = _ESCAPED.sub(rb"\1", quoted[1])
    return storable_text(unquote_to_bytes(raw))


def _batch(body: bytes) -> list[tuple[dict[str, str], bytes]] | None:
    try:
        events = parse_json(body)
    except ValueError:
        return None
    return [event_from_json(event, to_json(event)) for event in events] if isinstance(events, list) else None


def _malformed(headers: Mapping[str, bytes], body: bytes) -> Message:
    """Return a message that shows the headers in its dead letter, except the secret Authorization."""
    shown = {f"header:{name}": storable_text(value) for name, value in headers.items() if name != "authorization"}
    return _message(shown, body)


def _message(attributes: Mapping[str, str], data: bytes) -> Message:
    topic, key = topic_of(attributes.get("type", "")), attributes.get(_KEY, "")
    digest = hashlib.sha256(to_json(sorted(attributes.items())) + data).hexdigest()
    return Message(topic, key, attributes, data, f"http:{digest}")

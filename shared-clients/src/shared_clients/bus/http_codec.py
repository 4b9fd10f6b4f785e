"""How a message lies in an HTTP request: CloudEvents 1.0, HTTP protocol binding.

Written in binary mode by the SDK's own binding; read by hand in all three modes (binary, structured, batched), for the
reasons that `codec` gives. Nothing is refused here: what is no event becomes a message that shows what came.
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

from shared_clients.bus.codec import FORMAT, STRUCTURED, Verbatim, in_json, media_type, parsed, structured, text_of
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
    """Return headers and body of a message, in binary mode; its key goes as the attribute `partitionkey`.

    Raises:
        Permanent: HTTP cannot carry one of its attributes.
    """
    attributes = {**message.attributes, **({_KEY: message.key} if message.key else {})}
    media = attributes.get(DATACONTENTTYPE_ATTR, "")
    if odd := [name for name in attributes if not _NAME.fullmatch(name)]:
        raise Permanent(f"a message for {message.topic} has an attribute that CloudEvents has not: {odd[0][:40]!r}")
    if not _MEDIA.fullmatch(media) or media_type(media).startswith(_ANY_FORMAT):
        raise Permanent(f"a message for {message.topic} has a datacontenttype that HTTP cannot carry: {media[:80]!r}")
    written = to_binary(Verbatim(attributes, message.data), FORMAT)
    return written.headers, written.body


def decode_post(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> list[Message]:
    """Return the messages in a request, whatever is in it; more than one, or none, only where it is a batch.

    Args:
        headers: as ASGI has them. What came twice is joined by a comma, as HTTP says, and so is no valid `type`.
        body: all of it.
    """
    found: dict[str, list[bytes]] = defaultdict(list)
    for name, value in headers:
        found[text_of(name.lower())].append(value)
    joined = {name: b", ".join(values) for name, values in found.items()}
    content_type = text_of(joined.get(CONTENT_TYPE_HEADER))
    media = media_type(content_type)
    if media == _BATCH and (events := _batch(body)) is not None:
        return [_message(*event) if event[0] else _no_event(joined, event[1]) for event in events]
    if media == STRUCTURED:
        attributes, data = structured(body)
    elif media.startswith(_ANY_FORMAT):
        attributes, data = {}, body
    else:
        attributes, data = _binary(joined, content_type), body
    return [_message(attributes, data) if attributes else _no_event(joined, body)]


def _binary(headers: Mapping[str, bytes], content_type: str) -> dict[str, str]:
    attributes = {
        name.removeprefix(CE_PREFIX): _header(value) for name, value in headers.items() if name.startswith(CE_PREFIX)
    }
    attributes.pop(DATACONTENTTYPE_ATTR, None)  # it has a header of its own
    if attributes and content_type:
        attributes[DATACONTENTTYPE_ATTR] = content_type
    return attributes


def _header(raw: bytes) -> str:
    """Read a value as the binding says: quotes and backslashes first, then percent signs, then UTF-8."""
    if quoted := _QUOTED.fullmatch(raw):
        raw = _ESCAPED.sub(rb"\1", quoted[1])
    return text_of(unquote_to_bytes(raw))


def _batch(body: bytes) -> list[tuple[dict[str, str], bytes]] | None:
    try:
        events = parsed(body)
    except ValueError:
        return None
    return [in_json(event, to_json(event)) for event in events] if isinstance(events, list) else None


def _no_event(headers: Mapping[str, bytes], body: bytes) -> Message:
    """Show the headers for whoever looks at the dead letter, but for the one that lets senders in."""
    shown = {f"header:{name}": text_of(value) for name, value in headers.items() if name != "authorization"}
    return _message(shown, body)


def _message(attributes: Mapping[str, str], data: bytes) -> Message:
    topic, key = topic_of(attributes.get("type", "")), attributes.get(_KEY, "")
    digest = hashlib.sha256(to_json(sorted(attributes.items())) + data).hexdigest()
    return Message(topic, key, attributes, data, f"http:{digest}")

"""Binary mode of the CloudEvents HTTP binding: attributes are `ce-` headers, and the data is the body.

This is not done with the CloudEvents SDK, because the SDK parses times and data and formats them again, and a broker
passes both on unchanged. The tests compare this module with the SDK.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from mock_eventing.domain.events import Event, checked
from mock_eventing.errors import Fault, Malformed

PREFIX: Final = "ce-"
_UNCHANGED: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""Characters that are not percent-encoded in a header: printable ASCII without space, double quote and percent."""

type Headers = Sequence[tuple[bytes, bytes]]


def read_binary(headers: Headers, body: bytes) -> Event:
    """Return the event in a request.

    Args:
        headers: the headers, with names in lower case.
        body: the data; an empty body means that the event has no data.

    Raises:
        Malformed: see `checked`.
    """
    attributes: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1")
        if name == "content-type":
            attributes["datacontenttype"] = raw_value.decode("latin-1")
        elif name.startswith(PREFIX):
            attribute = name.removeprefix(PREFIX)
            if attribute in attributes or attribute == "datacontenttype":
                expected = "expected Content-Type instead" if attribute == "datacontenttype" else "expected it once"
                raise Malformed(Fault(name, f"is not allowed here; {expected}"))
            attributes[attribute] = _decoded(name, raw_value)
    if not any(name != "datacontenttype" for name in attributes):
        expected = "expected ce- headers, or Content-Type: application/cloudevents+json"
        raise Malformed(Fault("headers", f"hold no CloudEvent: {expected}"))
    return checked(attributes, body or None, prefix=PREFIX)


def write_binary(event: Event) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of an event."""
    headers = {
        f"{PREFIX}{name}": quote(value, safe=_UNCHANGED)
        for name, value in event.attributes.items()
        if name != "datacontenttype"
    }
    if media_type := event.attributes.get("datacontenttype"):
        headers["Content-Type"] = media_type
    return headers, event.data or b""


def _decoded(name: str, raw: bytes) -> str:
    """Return a header's value without the quotes of older senders and without percent-encoding."""
    if any(byte >= 0x7F for byte in raw):
        raise Malformed(Fault(name, "holds characters that are not ASCII; expected percent-encoding"))
    try:
        return unquote_to_bytes(_unquoted(raw)).decode()
    except UnicodeDecodeError:
        raise Malformed(Fault(name, "holds percent-encoded bytes that are not UTF-8")) from None


def _unquoted(raw: bytes) -> bytes:
    if len(raw) < 2 or not (raw.startswith(b'"') and raw.endswith(b'"')):
        return raw
    kept, escaped = bytearray(), False
    for byte in raw[1:-1]:
        escaped = byte == 0x5C and not escaped
        if not escaped:
            kept.append(byte)
    return bytes(kept)

"""One table of CloudEvents 1.0 cases, which every entry for events is tested with, so that all entries agree.

A case has the form of a request or record in each binding, and the events that an entry has to read from it. The cases
follow the features of the specification (v1.0.2: core, JSON format, HTTP binding, Kafka binding). Every event has all
attributes that Flotilla's envelope needs, unless the case is about a missing one.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

BASE: Final[Mapping[str, str]] = {
    "specversion": "1.0",
    "id": "0197f9c2-5b1c-7000-8000-000000000001",
    "source": "/flotilla/request-manager",
    "type": "flotilla.conformance.checked.v1",
    "subject": "0197f9c2-5b1c-7000-8000-000000000002",
    "time": "2026-11-21T12:00:00.123456Z",
    "partitionkey": "0197f9c2-5b1c-7000-8000-000000000003",
    "tenantid": "default",
    "correlationid": "0197f9c2-5b1c-7000-8000-000000000002",
}
JSON: Final = "application/json"
STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"

type Attributes = Mapping[str, str]
type Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        name: the feature under test.
        http: headers and body of a POST; None where the HTTP binding has no such form.
        kafka: headers and value of a record; None where the Kafka binding has no such form.
        events: attributes and data of each event that an entry has to read; None where the case is not valid.
        lenient: whether an entry may accept the case although it is against the specification.
    """

    name: str
    http: tuple[Headers, bytes] | None = None
    kafka: tuple[Headers, bytes] | None = None
    events: tuple[tuple[Attributes, bytes], ...] | None = None
    lenient: bool = False


def _header(value: str) -> bytes:
    """Percent-encode by the HTTP binding's rules: space, quote, percent, and all but printable ASCII."""
    return "".join(
        chr(byte) if 0x21 <= byte <= 0x7E and chr(byte) not in '"%' else f"%{byte:02X}" for byte in value.encode()
    ).encode()


def _binary(name: str, attributes: Attributes, data: bytes, *, valid: bool = True, lenient: bool = False) -> Case:
    others = {key: value for key, value in attributes.items() if key != "datacontenttype"}
    media = attributes.get("datacontenttype")
    http = tuple((f"ce-{key}", _header(value)) for key, value in others.items())
    kafka = tuple((f"ce_{key}", value.encode()) for key, value in others.items())
    content_type = () if media is None else (("content-type", media.encode()),)
    events = ((attributes, data),) if valid else None
    return Case(f"binary: {name}", ((*http, *content_type), data), ((*kafka, *content_type), data), events, lenient)


def _text(name: str, body: bytes, *events: tuple[Attributes, bytes], media: str = STRUCTURED) -> Case:
    """Return a case with a body in JSON; without events it is not valid, but for an empty batch."""
    headers = (("content-type", media.encode()),)
    found = events or (() if body == b"[]" else None)
    mode = "batched" if media.startswith(BATCHED) else "structured"
    return Case(f"{mode}: {name}", (headers, body), (headers, body) if mode == "structured" else None, found)


def _structured(name: str, members: Mapping[str, JsonValue], *events: tuple[Attributes, bytes]) -> Case:
    return _text(name, json.dumps(members).encode(), *events)


def _without(name: str) -> dict[str, str]:
    return {key: value for key, value in BASE.items() if key != name}


def _http(name: str, extra: Headers, *events: tuple[Attributes, bytes], lenient: bool = False) -> Case:
    """Return a case of HTTP headers alone: the headers of `BASE`, some of them replaced by `extra`."""
    replaced = {key.lower() for key, _ in extra}
    base = tuple((f"ce-{key}", _header(value)) for key, value in BASE.items() if f"ce-{key}" not in replaced)
    return Case(f"HTTP headers: {name}", ((*base, *extra), b"{}"), None, events or None, lenient)


_TYPED: Final = {**BASE, "datacontenttype": JSON}
_DATA: Final = b'{"a": 1.10, "b": "\\u00e9"}'
_ALL_BYTES: Final = bytes(range(256))

BINARY_MODE: Final = (
    _binary("every attribute, JSON data kept to the byte", _TYPED, _DATA),
    _binary("no data", BASE, b""),
    _binary("data without a content type", BASE, _DATA),
    _binary("data of any bytes", {**BASE, "datacontenttype": "application/octet-stream"}, _ALL_BYTES),
    _binary("text data", {**BASE, "datacontenttype": "text/plain; charset=utf-8"}, "Zoë ✓".encode()),
    _binary("JSON under a vendor's name", {**BASE, "datacontenttype": "application/vnd.x+json"}, b"[1, 2]"),
    _binary("content type with parameters", {**BASE, "datacontenttype": 'application/json; charset="utf-8"'}, b"{}"),
    _binary("dataschema", {**_TYPED, "dataschema": "https://example.com/schema#v1"}, b"{}"),
    _binary("value beyond ASCII", {**_TYPED, "subject": "Zoë € \U0001f600"}, b"{}"),
    _binary("value with spaces, quotes and percent signs", {**_TYPED, "subject": ' a "b" 100%25 \\ c '}, b"{}"),
    _binary("extensions of letters and digits", {**_TYPED, "comexampleextension1": "v", "0a9": "w"}, b"{}"),
    _binary("trace context", {**_TYPED, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "a=1,b=2"}, b"{}"),
    _binary("a long extension", {**_TYPED, "long": "x" * 2000}, b"{}"),
    _binary("time with an offset and nine digits", {**_TYPED, "time": "2026-11-21T13:00:00.123456789+01:00"}, b"{}"),
    *(_binary(f"no {name}", _without(name), b"{}", valid=False) for name in ("specversion", "id", "source", "type")),
    *(_binary(f"empty {name}", {**BASE, name: ""}, b"{}", valid=False) for name in ("id", "source", "type")),
    _binary("an invalid version", {**BASE, "specversion": "1.x"}, b"{}", valid=False),
    _binary("version 0.3", {**BASE, "specversion": "0.3"}, b"{}", valid=False),
    _binary("version 2.0", {**BASE, "specversion": "2.0"}, b"{}", valid=False),
    _binary("an invalid time", {**BASE, "time": "yesterday"}, b"{}", valid=False),
    _binary("an empty subject", {**BASE, "subject": ""}, b"{}", valid=False),
    _binary("an extension with a hyphen", {**BASE, "not-a-name": "v"}, b"{}", valid=False, lenient=True),
    _binary("an extension with an underscore", {**BASE, "not_a_name": "v"}, b"{}", valid=False, lenient=True),
    _binary("an attribute called data", {**BASE, "data": "v"}, b"{}", valid=False, lenient=True),
)

HTTP_HEADERS: Final = (
    _http("names in any case", (("CE-Type", BASE["type"].encode()),), (BASE, b"{}")),
    _http("lower-case percent-encoding", (("ce-subject", b"%e2%82%ac"),), ({**BASE, "subject": "€"}, b"{}")),
    _http("percent-encoding of a letter", (("ce-subject", b"%41b"),), ({**BASE, "subject": "Ab"}, b"{}")),
    _http("one round of decoding", (("ce-subject", b"%2541"),), ({**BASE, "subject": "%41"}, b"{}")),
    _http("a percent sign without two digits", (("ce-subject", b"100%"),), ({**BASE, "subject": "100%"}, b"{}")),
    _http("a quoted string", (("ce-subject", rb'"a \"b\" \\ c"'),), ({**BASE, "subject": 'a "b" \\ c'}, b"{}")),
    _http("an attribute twice", (("ce-type", b"a"), ("ce-type", BASE["type"].encode())), lenient=True),
    _http("datacontenttype as a ce- header", (("ce-datacontenttype", b"text/xml"),), lenient=True),
    _http("raw UTF-8", (("ce-subject", "Zoë".encode()),), lenient=True),
    _http("percent-encoding that is not UTF-8", (("ce-subject", b"%ff"),), lenient=True),
    _http("an encoded NUL", (("ce-subject", b"a%00b"),), lenient=True),
    Case("HTTP headers: no event at all", ((("content-type", b"application/json"),), b"{}"), None),
    Case(
        "HTTP headers: a format that is not supported",
        ((("content-type", b"application/cloudevents+avro"),), b"\x00"),
    ),
)

KAFKA_HEADERS: Final = (
    Case(
        "Kafka headers: no event at all",
        None,
        ((("content-type", b"application/json"), ("id", b"1"), ("type", b"t")), b"{}"),
    ),
    Case(
        "Kafka headers: raw percent signs stay",
        None,
        (
            (
                *((f"ce_{key}", value.encode()) for key, value in BASE.items() if key != "subject"),
                ("ce_subject", b"100%25"),
            ),
            b"",
        ),
        (({**BASE, "subject": "100%25"}, b""),),
    ),
)

STRUCTURED_MODE: Final = (
    _structured("JSON data", {**_TYPED, "data": {"a": [1, None, "é"]}}, (_TYPED, '{"a":[1,null,"é"]}'.encode())),
    _structured("JSON data without a content type", {**BASE, "data": {"a": 1}}, (BASE, b'{"a":1}')),
    _structured("a string as JSON data", {**_TYPED, "data": "x"}, (_TYPED, b'"x"')),
    _structured("false as JSON data", {**_TYPED, "data": False}, (_TYPED, b"false")),
    _structured(
        "text data",
        {**BASE, "datacontenttype": "text/plain", "data": "a\nb"},
        ({**BASE, "datacontenttype": "text/plain"}, b"a\nb"),
    ),
    _structured(
        "bytes in base64",
        {**BASE, "datacontenttype": "application/octet-stream", "data_base64": b64encode(_ALL_BYTES).decode()},
        ({**BASE, "datacontenttype": "application/octet-stream"}, _ALL_BYTES),
    ),
    _structured("JSON in base64, to the byte", {**_TYPED, "data_base64": b64encode(_DATA).decode()}, (_TYPED, _DATA)),
    _structured("no data", dict(BASE), (BASE, b"")),
    _structured(
        "typed attributes, and null for an unset one",
        {**BASE, "turn": 3, "dry": True, "unset": None},
        ({**BASE, "turn": "3", "dry": "true"}, b""),
    ),
    _structured("escapes", {**BASE, "subject": "Zoë \U0001f600 \t"[:-2]}, ({**BASE, "subject": "Zoë \U0001f600"}, b"")),
    _text(
        "a media type in any case with a charset",
        json.dumps(dict(BASE)).encode(),
        (BASE, b""),
        media="application/CloudEvents+JSON; charset=UTF-8",
    ),
    _text("blanks around the event", b" \r\n" + json.dumps(dict(BASE)).encode() + b"\t", (BASE, b"")),
    *(_structured(f"no {name}", dict(_without(name))) for name in ("specversion", "id", "source", "type")),
    _structured("an invalid version", {**BASE, "specversion": "1"}),
    _structured("an empty id", {**BASE, "id": ""}),
    _structured("data twice", {**BASE, "data": {}, "data_base64": "e30="}),
    _structured("invalid base64", {**BASE, "datacontenttype": "application/json", "data_base64": "%%%"}),
    _text("a member twice", b'{"id":"1",' + json.dumps(dict(BASE)).encode()[1:]),
    *(_text(f"not an event: {body[:8]!r}", body) for body in (b"", b"{", b"[1]", b'"x"', b"\xff", b"[" * 100_000)),
)

BATCHED_MODE: Final = (
    _text("no event", b"[]", media=BATCHED),
    _text(
        "two, in base64 and in JSON",
        json.dumps([{**_TYPED, "data_base64": b64encode(_DATA).decode()}, {**BASE, "id": "2", "data": 1}]).encode(),
        (_TYPED, _DATA),
        ({**BASE, "id": "2"}, b"1"),
        media=f"{BATCHED}; charset=utf-8",
    ),
    _text("one event instead of a list", json.dumps(dict(BASE)).encode(), media=BATCHED),
    _text("one invalid event of two", json.dumps([dict(BASE), _without("id")]).encode(), media=BATCHED),
    _text("a batch member that is not an object", json.dumps([1]).encode(), media=BATCHED),
)

CASES: Final = (*BINARY_MODE, *HTTP_HEADERS, *KAFKA_HEADERS, *STRUCTURED_MODE, *BATCHED_MODE)
HTTP_CASES: Final = tuple(case for case in CASES if case.http is not None)
KAFKA_CASES: Final = tuple(case for case in CASES if case.kafka is not None)

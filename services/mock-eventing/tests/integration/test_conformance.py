"""CloudEvents over HTTP, end to end: what comes in, in whatever mode, goes out with its attributes and its bytes.

The CloudEvents SDK plays both the sender and the subscriber's decoder.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tests.simulators.eventing import brokering, trigger
from tests.simulators.subscribers import Received, subscribing

CORE = {"id": "A234-1234-1234", "source": "https://github.com/cloudevents/spec/pull", "type": "com.github.pull.create"}
BINARY = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/tests", "ce_type": "t"}
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"

type Attributes = Mapping[str, object]

EVENTS: Mapping[str, tuple[Attributes, object]] = {
    "the required alone": ({}, None),
    "every optional one": (
        {"subject": "123", "dataschema": "https://example.com/s", "datacontenttype": "application/json"},
        {"appinfoA": "abc", "appinfoB": 123, "appinfoC": True},
    ),
    "an id that needs encoding": ({"id": 'a b"c%d€😀'}, None),
    "extensions": ({"comexampleextension1": "value", "comexampleothervalue": "5", "e": "ünï 100%"}, "text"),
    "a time in UTC": ({"time": datetime(2018, 4, 5, 17, 31, 0, 123456, tzinfo=UTC)}, None),
    "a time elsewhere": ({"time": datetime(2018, 4, 5, 17, 31, tzinfo=timezone(timedelta(hours=-7)))}, None),
    "a text": ({"datacontenttype": "text/plain; charset=utf-8"}, "zwölf Boxkämpfer"),
    "an XML": ({"datacontenttype": "application/xml"}, "<much wow='xml'/>"),
    "bytes": ({"datacontenttype": "application/octet-stream"}, bytes(range(256))),
    "a deep document": ({"datacontenttype": "application/json"}, {"a": [{"b": [None, 1.5, "ü"]}]}),
}


def decoded(received: Received) -> tuple[dict[str, object], object]:
    event = from_http_event(HTTPMessage(dict(received.headers), received.body))
    return dict(event.get_attributes()), event.get_data()


@pytest.mark.parametrize("out", ["binary", "json"])
@pytest.mark.parametrize("mode", ["binary", "structured", "batched"])
@pytest.mark.parametrize("name", EVENTS)
async def test_an_event_passes_in_every_mode(name: str, mode: str, out: str) -> None:
    more, data = EVENTS[name]
    event = CloudEvent({"time": datetime(2026, 1, 1, tzinfo=UTC), **CORE, **more}, data)  # type: ignore[arg-type]  # it takes any
    sent = to_binary_event(event) if mode == "binary" else to_structured_event(event)
    headers, body = dict(sent.headers), sent.body
    if mode == "batched":
        headers, body = {"content-type": BATCHED}, b"[" + body + b"]"
    async with subscribing() as subscriber:
        async with brokering(trigger("a", subscriber.uri, delivery=f"{{format: {out}}}")) as broker:
            assert (await broker.sender.post(body, **headers)).status == 202
        (received,) = subscriber.received
    attributes, got = decoded(received)
    expected = dict(event.get_attributes())
    if mode != "binary" and isinstance(data, str) and "datacontenttype" not in more:
        attributes.pop(
            "datacontenttype"
        )  # the JSON format implies JSON data; the SDK adds the attribute where that is not so
    assert attributes == expected
    assert got == data or (isinstance(data, str) and got == data.encode())
    assert (received.headers.get("content-type") == STRUCTURED) is (out == "json")


@pytest.mark.parametrize(
    "time",
    ["1985-04-12T23:20:50.52Z", "1990-12-31T23:59:60Z", "1937-01-01T12:00:27.870000000+00:20", "2020-01-01t00:00:00z"],
)
async def test_a_time_is_passed_on_as_it_was_written(time: str) -> None:
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri)) as broker:
        assert (await broker.sender.post(**BINARY, ce_time=time)).status == 202
        event = {"specversion": "1.0", "id": "2", "source": "/tests", "type": "t", "time": time}
        assert (await broker.sender.post(json.dumps(event).encode(), content_type=STRUCTURED)).status == 202
        assert [one.headers["ce-time"] for one in subscriber.received] == [time] * 2


@pytest.mark.parametrize(
    "data", [b"", b"\x00\xff" * 500, b'{"n":  1.00}\n', '"ünï"'.encode(), b"{not json", b"\r\n--boundary\r\n"]
)
@pytest.mark.parametrize(
    "media_type", [None, "application/json", "text/csv; header=present", "multipart/x; boundary=b"]
)
async def test_binary_data_is_passed_on_byte_by_byte(data: bytes, media_type: str | None) -> None:
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri)) as broker:
        headers = {**BINARY, **({"content_type": media_type} if media_type else {})}
        assert (await broker.sender.post(data, **headers)).status == 202
        (received,) = subscriber.received
        assert received.body == data
        assert received.headers.get("content-type") == media_type


@pytest.mark.parametrize(
    "data", ['{"n":  1.00, "n": 2}', "[1e400,\n 123456789012345678901234567890]", '"\\u00fc"', "0"]
)
async def test_structured_data_is_passed_on_letter_by_letter(data: str) -> None:
    body = '{"specversion":"1.0","id":"1","source":"/t","type":"t","data":%s}' % data  # noqa: UP031 - it has braces
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri)) as broker:
        assert (await broker.sender.post(body.encode(), content_type=STRUCTURED)).status == 202
        (received,) = subscriber.received
        assert received.body == data.encode()
        assert received.headers["content-type"] == "application/json"


async def test_base64_becomes_bytes_and_types_become_their_strings() -> None:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/tests",
        "type": "t",
        "flag": True,
        "count": -5,
        "absent": None,
        "data_base64": b64encode(b"\x00\x01").decode(),
        "datacontenttype": "application/octet-stream",
    }
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri)) as broker:
        assert (await broker.sender.post(json.dumps(event).encode(), content_type=STRUCTURED)).status == 202
        (received,) = subscriber.received
        found = {name: value for name, value in received.headers.items() if name.startswith("ce-")}
        core = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/tests", "ce-type": "t"}
        assert found == {**core, "ce-flag": "true", "ce-count": "-5"}
        assert received.body == b"\x00\x01"


async def test_header_values_are_encoded_as_the_binding_s_example() -> None:
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri)) as broker:
        for sent in ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro %e2%82%ac %f0%9f%98%80", '"Euro %E2%82%AC %F0%9F%98%80"'):
            assert (await broker.sender.post(**BINARY, ce_subject=sent)).status == 202
        passed = {one.headers["ce-subject"] for one in subscriber.received}
        assert passed == {"Euro%20%E2%82%AC%20%F0%9F%98%80"}


async def test_headers_beside_a_structured_event_do_not_count() -> None:
    event = b'{"specversion":"1.0","id":"inside","source":"/t","type":"t"}'
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri)) as broker:
        assert (await broker.sender.post(event, content_type=STRUCTURED.upper(), ce_id="outside")).status == 202
        assert subscriber.ids == ["inside"]

"""Records as we write and read them, with the CloudEvents SDK as the other party."""

import json
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import (
    KafkaMessage,
    from_binary_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from shared_clients.bus.codec import MAX_MESSAGE, Record, check_size, decode, encode
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent

ATTRIBUTES = {
    "specversion": "1.0",
    "id": "0197f9c2",
    "source": "/flotilla/request-manager",
    "type": "flotilla.request.created.v1",
    "time": "2026-11-21T12:00:00.123456+00:00",
    "datacontenttype": "application/json",
    "partitionkey": "session-1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=a,other=b",
}
EVENT = Message("flotilla.requests", "session-1", ATTRIBUTES, b'{"a": 1.10}')
ORIGIN = "kafka:flotilla.requests/3@42"
UNCLEAR = (
    b'{"id": "1", "data_base64": "%%%"}',
    b'{"id": "1", "data": 1, "data_base64": "e30="}',
    b'{"id": "1", "id": "2"}',
)
"""Events that two readers may read differently."""

holdable = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
names = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(lambda name: name != "datacontenttype")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def foreign(message: KafkaMessage) -> Record:
    key = message.key.encode() if isinstance(message.key, str) else message.key
    return Record(key, message.value, tuple(message.headers.items()))


def structured(event: object, content_type: bytes = b"application/cloudevents+json") -> Message:
    value = event if isinstance(event, bytes) else json.dumps(event).encode()
    return decode("t", Record(None, value, (("content-type", content_type),)), ORIGIN)


def test_what_is_written_is_read_back_to_the_byte() -> None:
    assert decode(EVENT.topic, encode(EVENT), ORIGIN) == EVENT


@given(holdable, st.dictionaries(names, holdable, min_size=1), st.binary())
def test_any_message_is_read_back_to_the_byte(key: str, attributes: dict[str, str], data: bytes) -> None:
    message = Message("t", key, attributes, data)
    assert decode("t", encode(message), ORIGIN) == message


def test_another_sdk_reads_what_we_write() -> None:
    record = encode(EVENT)
    headers = {name: value or b"" for name, value in record.headers}
    event = from_binary_event(KafkaMessage(headers, record.key, record.value))
    assert event.get_id() == ATTRIBUTES["id"]
    assert event.get_datacontenttype() == "application/json"
    assert event.get_extension("traceparent") == ATTRIBUTES["traceparent"]
    assert event.get_data() == {"a": 1.1}


@pytest.mark.parametrize("data", [{"a": [1, None]}, b"\x00\xff", None])
def test_we_read_what_another_sdk_writes_in_either_mode(data: dict[str, Any] | bytes | None) -> None:
    attributes = {"id": "1", "source": "/s", "type": "t", "partitionkey": "k", "datacontenttype": "application/json"}
    binary, in_json = (
        decode("t", foreign(write(CloudEvent({**attributes}, data))), ORIGIN)
        for write in (to_binary_event, to_structured_event)
    )
    for message in (binary, in_json):
        assert attributes.items() <= message.attributes.items()
        assert message.key == "k"
        expected = data if isinstance(data, bytes) else b"" if data is None else json.dumps(data).encode()
        assert message.data.replace(b" ", b"") == expected.replace(b" ", b"")


def test_structured_data_that_is_text_arrives_as_that_text() -> None:
    event = {"id": "1", "datacontenttype": "text/plain", "data": "a\nb"}
    assert structured(event, b"application/CloudEvents+JSON; charset=UTF-8").data == b"a\nb"


def test_structured_attributes_take_their_string_form() -> None:
    event = {"id": "1", "turn": 3, "dry": True, "subject": None, "odd": {"a": 1}, "data": "x"}
    assert structured(event) == Message("t", "", {"id": "1", "turn": "3", "dry": "true", "odd": '{"a":1}'}, b'"x"')


@pytest.mark.parametrize("value", [b"[1]", b"\xff", b'"text"', b"", b'{"id": "\\ud800"}', b"[" * 100_000, *UNCLEAR])
def test_structured_record_that_is_no_event_keeps_its_bytes(value: bytes) -> None:
    message = structured(value)
    assert message.data == value
    assert message.attributes == {"header:content-type": "application/cloudevents+json"}
    assert message.origin == ORIGIN


def test_record_without_an_event_shows_its_headers_and_none_is_taken_for_an_attribute() -> None:
    record = Record(b"k\xff", b"\x00raw", (("id", b"1"), ("source", b"/s"), ("x", None)))
    attributes = {"header:id": "1", "header:source": "/s", "header:x": ""}
    assert decode("t", record, ORIGIN) == Message("t", "k\\xff", attributes, b"\x00raw")


def test_event_with_missing_and_odd_attributes_gets_none_made_up() -> None:
    record = Record(None, b"", (("CE_ID", b"1\x00"), ("ce_time", b"yesterday"), ("ce_type", b"\xc3\x28")))
    assert decode("t", record, ORIGIN).attributes == {"id": "1\\x00", "time": "yesterday", "type": "\\xc3("}


@given(
    st.none() | st.binary(),
    st.binary() | json_values.map(json.dumps).map(str.encode),
    st.lists(
        st.tuples(
            st.sampled_from(["ce_id", "CE_TYPE", "ce_", "content-type", "\x00"]) | holdable,
            st.none() | st.binary() | st.just(b"application/cloudevents+json"),
        )
    ),
)
def test_whatever_a_stranger_sent_becomes_a_message_that_can_be_stored(
    key: bytes | None, value: bytes, headers: list[tuple[str, bytes | None]]
) -> None:
    message = decode("t", Record(key, value, tuple(headers)), ORIGIN)
    for text in (message.key, *message.attributes, *message.attributes.values()):
        assert "\x00" not in text
        text.encode()


def test_size_counts_the_bytes_of_key_attributes_and_data() -> None:
    around = len("kä".encode()) + len("id") + len("ö".encode())
    check_size(Message("t", "kä", {"id": "ö"}, b"x" * (MAX_MESSAGE - around)))
    with pytest.raises(Permanent, match="has 1000001 bytes; the bus takes at most 1000000"):
        check_size(Message("t", "kä", {"id": "ö"}, b"x" * (MAX_MESSAGE - around + 1)))

"""Both bindings of the bus against the table of CloudEvents cases, and as each other's and the SDK's other side."""

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from cloudevents.core.bindings import http as sdk_http
from cloudevents.core.bindings import kafka as sdk_kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared_clients.bus.codec import Record, decode, encode
from shared_clients.bus.http_codec import MAX_BODY, decode_post, encode_post
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent
from shared_models.catalog import REQUEST_CREATED
from shared_models.envelope import Envelope
from tests.cloudevents_cases import BASE, HTTP_CASES, KAFKA_CASES, Case


def over_http(case: Case) -> Sequence[Message]:
    assert case.http is not None
    headers, body = case.http
    return decode_post([(name.lower().encode(), value) for name, value in headers], body)


def over_kafka(case: Case) -> Sequence[Message]:
    assert case.kafka is not None
    headers, value = case.kafka
    return [decode("t", Record(None, value, headers), "kafka:t/0@0")]


ENTRIES = [
    pytest.param(case, read, id=f"{at}: {case.name}")
    for at, read, cases in (("http", over_http, HTTP_CASES), ("kafka", over_kafka, KAFKA_CASES))
    for case in cases
]


def invalid(message: Message) -> bool:
    try:
        Envelope.parse(message.attributes, message.data)
    except ValidationError:
        return True
    return False


@pytest.mark.parametrize(("case", "read"), ENTRIES)
def test_every_entry_reads_an_event_as_the_specification_says(
    case: Case, read: Callable[[Case], Sequence[Message]]
) -> None:
    messages = read(case)
    if case.events is not None:
        assert [(dict(message.attributes), message.data) for message in messages] == [
            (dict(attributes), data) for attributes, data in case.events
        ]
        assert not any(invalid(message) for message in messages)
    elif not case.lenient:
        assert any(invalid(message) for message in messages)
    for message in messages:
        for text in (message.key, *message.attributes, *message.attributes.values()):
            assert "\x00" not in text
            text.encode()


def test_a_request_that_is_no_event_shows_its_headers_except_the_secret() -> None:
    [message] = decode_post([(b"x-from", b"\xff"), (b"authorization", b"Bearer hunter2")], b"\x00")
    assert message.attributes == {"header:x-from": "\\xff"}
    assert message.data == b"\x00"
    assert message.origin.startswith("http:")


def test_events_without_an_id_have_an_origin_of_their_own_that_a_redelivery_repeats() -> None:
    one, again, other = (decode_post([(b"ce-type", kind)], b"x")[0].origin for kind in (b"t", b"t", b"u"))
    assert one == again != other


def test_a_content_type_among_the_attributes_is_not_believed() -> None:
    [message] = decode_post([(b"ce-id", b"1"), (b"ce-datacontenttype", b"text/xml")], b"")
    assert message.attributes == {"id": "1"}


def test_topic_comes_from_the_catalogue_and_the_key_from_the_event() -> None:
    headers = [(b"ce-type", REQUEST_CREATED.name.encode()), (b"ce-partitionkey", b"k")]
    [message] = decode_post(headers, b"")
    assert (message.topic, message.key) == (REQUEST_CREATED.topic, "k")
    assert decode_post([(b"ce-type", b"elsewhere.v1")], b"")[0].topic == "elsewhere.v1"


@pytest.mark.parametrize(
    "attributes",
    [
        {"not-a-name": "v"},
        {"Upper": "v"},
        {"": "v"},
        {"datacontenttype": "text/plain\r\nX-Injected: yes"},
        {"datacontenttype": "application/cloudevents+json"},
    ],
)
def test_what_http_cannot_carry_is_refused_for_good(attributes: dict[str, str]) -> None:
    with pytest.raises(Permanent, match="a message for t has"):
        encode_post(Message("t", "k", attributes, b""))


def test_largest_message_fits_a_body_in_base64() -> None:
    assert len(base64.b64encode(b"x" * 1_000_000)) < MAX_BODY


words = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=30)
media_types = st.sampled_from(["application/json", "text/plain; charset=utf-8", "application/octet-stream"])
times = st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1))  # noqa: DTZ001 - Hypothesis adds it
envelopes = st.builds(
    Envelope,
    id=words,
    source=words,
    type=words,
    subject=words,
    time=times,
    datacontenttype=media_types,
    partitionkey=words,
    turn=st.none() | st.integers(1, 2**31 - 1),
    expirytime=st.none() | times,
    traceparent=st.none() | words,
    tracestate=st.none() | words,
    tenantid=words,
    correlationid=st.uuids().map(lambda found: UUID(int=found.int)),
    causationid=st.none() | words,
    data=st.binary(max_size=200),
)


def message_of(event: Envelope) -> Message:
    return Message(event.type, event.partitionkey, event.attributes(), event.data)


def posted(message: Message) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("ascii")) for name, value in encode_post(message)[0].items()]


def as_sdk(attributes: dict[str, Any]) -> dict[str, str]:
    """Print what the SDK has parsed: times as ours are printed, and whatever else as it is."""
    return {key: value.isoformat() if isinstance(value, datetime) else str(value) for key, value in attributes.items()}


def in_its_own_words(event: Envelope, data: Any) -> CloudEvent:
    attributes: dict[str, Any] = {**event.attributes(), "time": event.time}
    return CloudEvent(attributes, data)


@given(envelopes)
def test_any_event_comes_back_from_http_headers_and_from_kafka_headers_to_the_byte(event: Envelope) -> None:
    message = message_of(event)
    [over_the_wire] = decode_post(posted(message), encode_post(message)[1])
    for arrived in (over_the_wire, decode(message.topic, encode(message), "")):
        assert arrived == message
        assert Envelope.parse(arrived.attributes, arrived.data) == event


@given(envelopes)
def test_any_event_comes_back_from_structured_json_in_either_binding_to_the_byte(event: Envelope) -> None:
    document = {**event.attributes(), "data_base64": base64.b64encode(event.data).decode()}
    headers = (("content-type", b"application/cloudevents+json"),)
    value = json.dumps(document).encode()
    [over_http] = decode_post([(name.encode(), text) for name, text in headers], value)
    for arrived in (over_http, decode("t", Record(None, value, headers), "")):
        assert Envelope.parse(arrived.attributes, arrived.data) == event


@given(envelopes.filter(lambda event: event.data != b""))
def test_the_sdk_reads_every_event_that_we_write(event: Envelope) -> None:
    message = message_of(event)
    headers, body = encode_post(message)
    record = encode(message)
    read = (
        sdk_http.from_binary(sdk_http.HTTPMessage(dict(headers), body), Bytes()),
        sdk_kafka.from_binary(
            sdk_kafka.KafkaMessage({name: value or b"" for name, value in record.headers}, record.key, record.value),
            Bytes(),
        ),
    )
    for theirs in read:
        assert as_sdk(theirs.get_attributes()) == message.attributes
        assert theirs.get_data() == event.data


@given(envelopes)
def test_we_read_every_event_that_the_sdk_writes(event: Envelope) -> None:
    theirs = in_its_own_words(event, event.data)
    binary, structured = sdk_http.to_binary_event(theirs), sdk_http.to_structured_event(theirs)
    for wire in (binary, structured):
        [arrived] = decode_post([(n.encode(), v.encode()) for n, v in wire.headers.items()], wire.body)
        assert Envelope.parse(arrived.attributes, arrived.data) == event


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=5), st.binary(max_size=40))
def test_whatever_a_stranger_posts_becomes_messages_that_can_be_stored(
    headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    for media in (b"application/cloudevents-batch+json", b"application/cloudevents+json", b"text/plain"):
        for message in decode_post([(b"content-type", media), (b"ce-id", b"1"), *headers], body):
            for text in (message.topic, message.key, *message.attributes, *message.attributes.values()):
                assert "\x00" not in text
                text.encode()


class Bytes(JSONFormat):
    """The SDK's format, without its guesses about what the data might be."""

    def read_data(self, body: bytes, datacontenttype: str | None) -> bytes:  # noqa: ARG002 - its signature
        return body


def test_the_base_of_the_table_is_a_whole_envelope() -> None:
    assert not invalid(Message("t", "", BASE, b"{}"))

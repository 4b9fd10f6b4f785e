"""Binary mode, read and written, with the CloudEvents SDK as the other side."""

from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event, to_binary_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from mock_eventing.domain.binary import read_binary, write_binary
from mock_eventing.domain.events import Event
from mock_eventing.errors import Malformed

VALID = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/tests", "ce-type": "com.example.made"}
CORE = {"specversion", "id", "source", "type", "time", "datacontenttype", "dataschema", "subject", "data"}

texts = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc"], exclude_characters=[*map(chr, range(0xFDD0, 0xFDF0)), "\uffff", "\ufffe"]
    ),
    max_size=40,
)
extensions = st.dictionaries(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20).filter(lambda name: name not in CORE),
    texts,
    max_size=4,
)


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


def read(**headers: str) -> Event:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_binary(raw({**VALID, **named}), b"")


@given(extensions, texts.filter(bool), st.binary())
def test_what_is_written_is_read_again_and_by_the_sdk_too(more: dict[str, str], id_: str, data: bytes) -> None:
    attributes = {"specversion": "1.0", "id": id_, "source": "/tests", "type": "t", **more}
    event = Event({**attributes, "datacontenttype": "application/octet-stream"}, data or None)
    headers, body = write_binary(event)
    assert all(value.isascii() and value.isprintable() and " " not in value for value in headers.values())
    assert read_binary(raw(headers), body) == event
    theirs = from_binary_event(HTTPMessage(headers, body))
    assert {**theirs.get_attributes(), "time": "now"} == {**event.attributes, "time": "now"}  # it adds one


@given(extensions, st.datetimes(timezones=st.just(UTC)))
def test_what_the_sdk_writes_is_read(more: dict[str, str], time: datetime) -> None:
    theirs = CloudEvent({"id": "1", "source": "/tests", "type": "t", "time": time, **more}, "héllo")
    message = to_binary_event(theirs)
    event = read_binary(raw(message.headers), message.body)
    assert event.data == "héllo".encode()
    expected = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "t", **more}
    assert {name: value for name, value in event.attributes.items() if name != "time"} == expected
    assert event.attributes["time"] == time.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%41%42", "AB"),
        ("plain words", "plain words"),
        ('"quoted words"', "quoted words"),
        (r'"a \"b\" \\ c"', r'a "b" \ c'),
        ('"%22"', '"'),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("%2525", "%25"),
        ('"', '"'),
    ],
)
def test_a_header_is_decoded_as_the_binding_says(sent: str, meant: str) -> None:
    assert read(ce_subject=sent).attributes["subject"] == meant


def test_the_specification_s_own_example_is_encoded_as_it_says() -> None:
    event = Event({"subject": "Euro € 😀"}, None)
    assert write_binary(event)[0] == {"ce-subject": "Euro%20%E2%82%AC%20%F0%9F%98%80"}
    assert write_binary(Event({"a": '"50%"'}, None))[0] == {"ce-a": "%2250%25%22"}


@pytest.mark.parametrize(
    ("headers", "where"),
    [
        ({"ce_subject": "%C0%A0"}, "ce-subject: holds percent-encoded bytes that are not UTF-8"),
        ({"ce_subject": "straße"}, "ce-subject: holds characters that are not ASCII"),
        ({"ce_subject": "%0A"}, "ce-subject: holds a control character"),
        (
            {"ce_datacontenttype": "text/plain"},
            "ce-datacontenttype: is not allowed here; expected Content-Type instead",
        ),
        ({"ce_my_extension": "x"}, "ce-my-extension: is not an attribute's name"),
        ({"ce_": "x"}, "ce-: is not an attribute's name"),
    ],
)
def test_a_header_that_is_wrong_is_named(headers: dict[str, str], where: str) -> None:
    with pytest.raises(Malformed) as raised:
        read(**headers)
    assert str(raised.value).startswith(where)


def test_an_attribute_that_comes_twice_is_refused() -> None:
    with pytest.raises(Malformed, match="ce-id: is not allowed here; expected it once"):
        read_binary([*raw(VALID), (b"ce-id", b"2")], b"")


def test_what_has_no_attributes_is_no_event() -> None:
    with pytest.raises(Malformed, match="hold no CloudEvent"):
        read_binary([(b"content-type", b"application/json")], b"{}")


def test_other_headers_are_no_attributes() -> None:
    event = read(Authorization="Bearer x", X_Ce_Id="9", traceparent="00-1-2-01")
    assert set(event.attributes) == {"specversion", "id", "source", "type"}
    assert event.data is None

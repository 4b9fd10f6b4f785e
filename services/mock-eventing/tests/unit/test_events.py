"""What is an event and what is not, whatever mode it came in."""

import pytest

from mock_eventing.domain.events import MAX_ATTRIBUTES, checked
from mock_eventing.errors import Malformed

VALID = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "com.example.made"}


def refusal(**changes: str) -> str:
    with pytest.raises(Malformed) as raised:
        checked({**VALID, **changes}, None, "ce-")
    return str(raised.value)


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_a_required_attribute_is_required(name: str) -> None:
    with pytest.raises(Malformed, match=f"^ce-{name}: is required and missing$"):
        checked({key: value for key, value in VALID.items() if key != name}, None, "ce-")
    assert refusal(**{name: ""}).startswith(f"ce-{name}: is empty")


def test_every_fault_is_told() -> None:
    with pytest.raises(Malformed, match=r"ce-id: is required and missing \(and 2 more\)$") as raised:
        checked({"specversion": "0.3", "source": "a b", "type": "t"}, None, "ce-")
    assert [fault.pointer for fault in raised.value.faults] == ["ce-id", "ce-specversion", "ce-source"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time", "2018-04-05T17:31:00Z"),
        ("time", "2018-04-05t17:31:00z"),
        ("time", "1937-01-01T12:00:27.87+00:20"),
        ("time", "1990-12-31T15:59:60-08:00"),
        ("time", "2020-03-01T03:03:03.123456789012Z"),
        ("source", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"),
        ("source", "https://github.com/cloudevents?a=b#c"),
        ("source", "1-555-123-4567"),
        ("source", "/%E2%82%AC"),
        ("subject", "häuser und straßen 😀"),
        ("dataschema", "https://example.com/schema#1"),
        ("datacontenttype", "application/vnd.a+json; charset=utf-8; version=1"),
        ("datacontenttype", "text/plain"),
        ("comexampleextension1", ""),
        ("a" * 64, "long names are only discouraged"),
    ],
)
def test_a_valid_value_is_kept_as_it_is(name: str, value: str) -> None:
    assert checked({**VALID, name: value}, b"x").attributes[name] == value


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("specversion", "1.1", "is '1.1'; expected '1.0'"),
        ("time", "2018-04-05", "RFC 3339"),
        ("time", "2018-04-05T17:31:00", "RFC 3339"),
        ("time", "2018-13-05T17:31:00Z", "RFC 3339"),
        ("time", "2018-04-05T25:31:00Z", "RFC 3339"),
        ("source", "a b", "URI reference"),
        ("source", "/straße", "URI reference"),
        ("subject", "", "leave it out"),
        ("dataschema", "/relative", "absolute URI"),
        ("datacontenttype", "json", "media type"),
        ("datacontenttype", "application/json;\u20ac", "media type"),
        ("data", "x", "is not allowed as an attribute's name"),
        ("my-extension", "x", "lower-case letters a to z and digits"),
        ("MyExtension", "x", "lower-case letters a to z and digits"),
        ("ext", "line\nbreak", "control character"),
        ("ext", "\x7f", "control character"),
        ("ext", "\ud800", "control character"),
        ("ext", "\uffff", "control character"),
        ("ext", "x" * MAX_ATTRIBUTES, "bytes together"),
    ],
)
def test_an_invalid_value_is_refused_by_its_name(name: str, value: str, expected: str) -> None:
    message = refusal(**{name: value})
    assert expected in message
    assert message.startswith(f"ce-{name}" if "together" not in expected else "ce-attributes")

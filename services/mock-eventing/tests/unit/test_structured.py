"""Structured and batched mode, read and written, with the CloudEvents SDK as the other side."""

import json
from base64 import b64encode

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from mock_eventing.domain.events import Event
from mock_eventing.domain.structured import read_batch, read_structured, write_structured
from mock_eventing.errors import Malformed

HEAD = '"specversion":"1.0","id":"1","source":"/tests","type":"t"'
CORE = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "t"}

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def read(members: str) -> Event:
    return read_structured(f"{{{HEAD},{members}}}".encode())


@pytest.mark.parametrize(
    "data",
    ['{"n":  1.00,\n "n": 2}', "[1e400, 12345678901234567890123456789]", '"text"', "0.10", '"\\ud83d\\ude00"', "true"],
)
def test_json_data_reaches_subscribers_letter_by_letter(data: str) -> None:
    event = read(f' "data" : {data} , "z":"9"')
    assert event.data == data.encode()
    assert event.attributes == {**CORE, "datacontenttype": "application/json", "z": "9"}


@given(documents.filter(lambda document: document is not None), st.sampled_from([None, 1, "\t"]))
def test_any_json_is_cut_out_as_it_stands(document: object, indent: int | str | None) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=False).encode("utf-8", "replace").decode()
    assert read(f'"data":{text}').data == text.encode()


@pytest.mark.parametrize(
    ("members", "data"),
    [
        ('"datacontenttype":"text/xml","data":"<a>\\u00e9</a>"', "<a>é</a>".encode()),
        ('"datacontenttype":"application/vnd.x+json","data":"a"', b'"a"'),
        ('"datacontenttype":"application/json; charset=utf-8","data":"a"', b'"a"'),
        ('"datacontenttype":"text/plain","data":{"a":1}', b'{"a":1}'),
        ('"data_base64":"AP8="', b"\x00\xff"),
        ('"data_base64":""', b""),
        ('"data":null', None),
        ('"subject":"s"', None),
    ],
)
def test_data_has_the_form_that_its_media_type_says(members: str, data: bytes | None) -> None:
    assert read(members).data == data


@pytest.mark.parametrize(
    "name", ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"]
)
@pytest.mark.parametrize("value", [1, 1.0, True, {}, []])
def test_an_attribute_of_the_specification_has_to_be_a_string(name: str, value: object) -> None:
    with pytest.raises(Malformed, match=f"/{name}: has another type; expected a string"):
        read_structured(json.dumps({**CORE, name: value}).encode())


def test_extensions_take_the_string_form_of_their_type() -> None:
    event = read('"a":true,"b":false,"c":42,"d":-2147483648,"e":"x","f":null')
    assert event.attributes == {**CORE, "a": "true", "b": "false", "c": "42", "d": "-2147483648", "e": "x"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", "/: character 0 is not as expected; expected an object"),
        ("[]", "expected an object"),
        ("{", "expected a JSON value"),
        (f"{{{HEAD}}} x", "expected nothing more"),
        (f'{{{HEAD},"id":"2"}}', "expected the name of a member that the object does not have yet"),
        (f'{{{HEAD},"a":1.5}}', "/a: has another type; expected a string, a boolean or a 32-bit integer"),
        (f'{{{HEAD},"a":2147483648}}', "/a: has another type; expected a string, a boolean or a 32-bit integer"),
        (f'{{{HEAD},"a":{{}}}}', "/a: has another type; expected a string"),
        (f'{{{HEAD},"a":NaN}}', "expected a JSON value"),
        (f'{{{HEAD},"data":{"[" * 200_000}', "not nested too deep"),
        (f'{{{HEAD},"data_base64":"#"}}', "/data_base64: is not base64"),
        (f'{{{HEAD},"data_base64":1}}', "/data_base64: is not a string"),
        (f'{{{HEAD},"data":1,"data_base64":"AA=="}}', "or there is a member `data` too"),
        (f'{{{HEAD},"Upper":"x"}}', "/Upper: is not an attribute's name"),
        ('{"specversion":"1.0"}', "/id: is required and missing (and 2 more)"),
        ("\ufeff{}", "expected an object"),
        (f'{{{HEAD},"datacontenttype":"text/plain","data":"\\ud800"}}', "/data: holds half of a surrogate pair"),
        (f'{{{HEAD},"{"X" * 1000}":"x"}}', f"/{'X' * 79}: is not an attribute's name"),
    ],
)
def test_fault_is_named_by_its_json_pointer(body: str, expected: str) -> None:
    with pytest.raises(Malformed) as raised:
        read_structured(body.encode())
    assert expected in str(raised.value)


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(Malformed, match="byte 1 is not UTF-8"):
        read_structured(b"{\xff}")


def test_a_batch_is_read_in_its_order() -> None:
    ids = [f'{{{HEAD.replace("1", "1", 1)},"n":"{number}"}}' for number in range(3)]
    assert [event.attributes["n"] for event in read_batch(f" [ {' , '.join(ids)} ] ".encode())] == ["0", "1", "2"]
    assert read_batch(b"[]") == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f'[{{{HEAD}}},{{"id":"2"}}]', "/1/specversion: is required"),
        (f"[{{{HEAD}}},]", "expected an object"),
        (f"[{{{HEAD}}}", "expected ']'"),
        ("{}", "expected an array of events"),
    ],
)
def test_a_batch_with_a_fault_is_refused_whole(body: str, expected: str) -> None:
    with pytest.raises(Malformed) as raised:
        read_batch(body.encode())
    assert expected in str(raised.value)


@given(documents, st.text(), st.booleans())
def test_what_the_sdk_writes_is_read(document: object, text: str, binary: bool) -> None:
    body = text.encode("utf-8", "replace")
    data = body if binary else {"d": document}
    message = to_structured_event(CloudEvent({**CORE, "datacontenttype": "application/json"}, data))
    event = read_structured(message.body)
    assert event.data == body if binary else json.loads(event.data or b"") == data


@pytest.mark.parametrize("data", [b'{"a": 1}', b'{"a":\n1}', b"\x00\xff", b"not json", b"", None])
@pytest.mark.parametrize("media_type", ["application/json", "application/octet-stream"])
def test_what_is_written_is_read_again_and_by_the_sdk_too(data: bytes | None, media_type: str) -> None:
    event = Event({**CORE, "datacontenttype": media_type, "subject": "ünï"}, data)
    for one_line in (False, True):
        written = write_structured(event, one_line=one_line)
        assert read_structured(written) == event
        assert not (one_line and b"\n" in written)
        theirs = from_structured_event(HTTPMessage({}, written))
        assert theirs.get_subject() == "ünï"


def test_json_is_shown_as_json_and_the_rest_in_base64() -> None:
    readable = write_structured(Event({**CORE, "datacontenttype": "application/json"}, b'{"a":1}'))
    assert readable.endswith(b'"data":{"a":1}}')
    other = write_structured(Event(CORE, b"\x00"))
    assert other.endswith(b'"data_base64":"' + b64encode(b"\x00") + b'"}')

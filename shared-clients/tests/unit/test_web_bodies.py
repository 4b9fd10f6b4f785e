"""Hostile bodies: each is refused with its fault and the place of it, and none causes a crash."""

import contextlib
import json
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, JsonValue

from service_process.web import json_body
from service_process.web.bodies import MAX_VALUES, parse_json
from shared_models.problems import Problem
from shared_models.requests import NewRequest

DEEP: Final = 10_000


class Anything(BaseModel):
    """The most permissive model there can be: the grammar alone has to hold."""

    model_config = ConfigDict(extra="allow")

    content: JsonValue = None


NOT_JSON: Final[dict[str, bytes]] = {
    "nothing": b"",
    "spaces": b"  \n",
    "text": b"hello",
    "half an object": b'{"content":"a"',
    "half a text": b'{"content":"a',
    "something after the end": b'{"content":"a"} x',
    "two documents": b'{"content":"a"}{"content":"b"}',
    "a comma too many": b'{"content":"a",}',
    "single quotes": b"{'content':'a'}",
    "a comment": b'{"content":"a"/* b */}',
    "a byte order mark": b'\xef\xbb\xbf{"content":"a"}',
    "UTF-16": '{"content":"a"}'.encode("utf-16"),
    "invalid UTF-8": b'{"content":"\xff"}',
    "an overlong NUL": b'{"content":"\xc0\x80"}',
    "a surrogate in UTF-8": b'{"content":"\xed\xa0\x80"}',
    "a lone leading surrogate": b'{"content":"\\ud800"}',
    "a lone trailing surrogate": b'{"content":"\\udc00"}',
    "surrogates in the wrong order": b'{"content":"\\udc00\\ud800"}',
    "a lone surrogate in a name": b'{"\\ud800":"a"}',
    "a raw NUL": b'{"content":"a\x00b"}',
    "a NUL after the end": b'{"content":"a"}\x00',
    "a raw newline in a text": b'{"content":"a\nb"}',
    "NaN": b'{"content":NaN}',
    "Infinity": b'{"content":Infinity}',
    "-Infinity": b'{"content":-Infinity}',
    "a leading zero": b'{"content":01}',
    "a leading plus": b'{"content":+1}',
    "hexadecimal": b'{"content":0x10}',
    "an integer of 5,000 digits": b'{"content":' + b"9" * 5000 + b"}",
    "arrays 10,000 deep": b'{"content":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "objects 10,000 deep": b'{"content":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "an open end, 10,000 deep": b"[" * DEEP,
    "a duplicate member": b'{"content":"a","content":"b"}',
    "a duplicate member in another spelling": b'{"content":"a","c\\u006fntent":"b"}',
    "a duplicate member far inside": b'{"content":"a","metadata":{"k":"1","k":"2"}}',
}

NOT_A_REQUEST: Final[dict[str, tuple[bytes, str]]] = {
    "null": (b"null", ""),
    "a list": (b"[]", ""),
    "a text": (b'"content"', ""),
    "nothing in it": (b"{}", "/content"),
    "an integer beyond 64 bits": (b'{"content":%d}' % 2**70, "/content"),
    "a number too large for a float": (b'{"content":1e999}', "/content"),
    "a truth value": (b'{"content":true}', "/content"),
    "an object for the text": (b'{"content":{"constrained-str":1}}', "/content"),
    "an empty text": (b'{"content":""}', "/content"),
    "too long a text": (b'{"content":"' + b"a" * 131_073 + b'"}', "/content"),
    "NUL in the text": (b'{"content":"a\\u0000b"}', "/content"),
    "NUL after an escaped backslash": (b'{"content":"\\\\\\u0000"}', "/content"),
    "NUL in a name": (b'{"content":"a","metadata":{"k\\u0000":"v"}}', "/metadata"),
    "NUL in a value": (b'{"content":"a","metadata":{"k":"\\u0000"}}', "/metadata/k"),
    "NUL in a part": (b'{"content":[{"type":"text","text":"a"},{"type":"text","text":"\\u0000"}]}', "/content/1/text"),
    "an unknown member": (b'{"content":"a","prompt":"b"}', "/prompt"),
    "an unknown member with odd letters": (b'{"content":"a","x~/y":1}', "/x~0~1y"),
    "no id": (b'{"content":"a","session_id":"me"}', "/session_id"),
    "no name": (b'{"content":"a","agent":"Front Desk"}', "/agent"),
    "a part of an unknown type": (b'{"content":[{"type":"image","text":"a"}]}', "/content/0/type"),
    "a part without its text": (b'{"content":[{"type":"text"}]}', "/content/0/text"),
    "a value that is no text": (b'{"content":"a","metadata":{"k":1}}', "/metadata/k"),
    "too many values": (
        b'{"content":"a","metadata":{%s}}' % b",".join(b'"%d":"v"' % n for n in range(33)),
        "/metadata",
    ),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize("model", [NewRequest, Anything])
def test_a_body_that_is_not_json_is_refused_as_such(body: bytes, model: type[BaseModel]) -> None:
    with pytest.raises(Problem) as refused:
        parse_json(body, model)
    assert refused.value.kind.slug == "invalid-json"
    assert "RFC 8259" in refused.value.detail


@pytest.mark.parametrize(("body", "pointer"), NOT_A_REQUEST.values(), ids=NOT_A_REQUEST)
def test_a_faulty_body_is_refused_with_the_place_of_the_fault(body: bytes, pointer: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_json(body, NewRequest)
    assert refused.value.kind.slug == "invalid-body"
    assert pointer in [entry["pointer"] for entry in refused.value.errors]
    assert all(entry["detail"] for entry in refused.value.errors)


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b'{"content":"a"}', "a"),
        (b' \r\n\t{"content":"a"} \n', "a"),
        (b'{"content":"\\\\u0000"}', "\\u0000"),
        (b'{"content":"\\ud83d\\udea2"}', "\N{SHIP}"),
        ('{"content":"\N{SHIP}"}'.encode(), "\N{SHIP}"),
        (b'{"content":"NaN and Infinity"}', "NaN and Infinity"),
        (b'{"content":"\\u0001\\ufffe"}', "\u0001\ufffe"),
    ],
)
def test_what_only_looks_hostile_is_taken_as_it_is(body: bytes, content: str) -> None:
    assert parse_json(body, NewRequest).content == content


FRAGMENTS: Final = (
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b" ", b"\\", b"-", b"0", b"null", b"true", b"NaN", b"1e999", b"9" * 50),
    *(b"content", b'"content"', b'"text"', b"\\u0000", b"\\ud800", b"\x00", b"\xff", b"\xef\xbb\xbf"),
)
SCALARS: Final = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES: Final = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)


@given(st.binary(max_size=200) | st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(b"".join))
def test_no_bytes_at_all_are_a_crash(body: bytes) -> None:
    for model in (NewRequest, Anything):
        with contextlib.suppress(Problem):
            parse_json(body, model)


@given(VALUES)
def test_proper_json_is_read_as_the_standard_library_reads_it(value: JsonValue) -> None:
    body = json.dumps({"content": value}).encode()
    try:
        read = parse_json(body, Anything).content
    except Problem:
        assert b"\\u0000" in body
    else:
        assert read == value


def test_what_was_sent_is_not_repeated_in_the_answer() -> None:
    with pytest.raises(Problem) as refused:
        parse_json(b'{"content":"a","session_id":"my secret","metadata":{"k":17171717}}', NewRequest)
    said = refused.value.detail + str(refused.value.errors)
    assert "my secret" not in said
    assert "17171717" not in said


def test_thousands_of_faults_get_a_short_answer() -> None:
    body = b'{"content":"a",%s}' % b",".join(b'"k%d":1' % n for n in range(4_000))
    with pytest.raises(Problem) as refused:
        parse_json(body, NewRequest)
    assert len(refused.value.errors) == 20
    assert "and 3999 more" in refused.value.detail


def test_a_route_can_describe_the_body_it_reads() -> None:
    described = json_body(NewRequest)
    assert "NewRequest" in str(described)


@pytest.mark.parametrize(
    "body",
    [
        {"content": "x", **{str(number): 1 for number in range(130_000)}},
        {"content": [0] * 130_000},
        {"content": "x", "metadata": {str(number): 1 for number in range(10_000)}},
        {"content": [{"a": 1} for _ in range(2_500)]},
    ],
)
def test_body_with_very_many_values_is_refused_before_its_faults_are_described(
    body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NewRequest, "__pydantic_validator__", None)  # a validation would raise an AttributeError
    with pytest.raises(Problem) as refused:
        parse_json(json.dumps(body).encode(), NewRequest)
    assert refused.value.errors == ({"pointer": "", "detail": "has more than 4096 members and elements; send fewer"},)


def test_body_with_as_many_values_as_allowed_is_read() -> None:
    assert parse_json(json.dumps({"content": [0] * (MAX_VALUES - 1)}).encode(), Anything).content == [0] * 4095

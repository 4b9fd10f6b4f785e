"""Headers that several services read: case, white space, quoted text, parameters, repeated lines and hostile input."""

import pytest

from shared_clients.headers import (
    asks_to_wait,
    bearer_token,
    content_length,
    cookies,
    media_type,
    names_entity,
    preferred_wait,
    tokens,
)


@pytest.mark.parametrize(
    ("authorization", "token"),
    [
        ("Bearer k", "k"),
        ("bearer k", "k"),
        ("BEARER k", "k"),
        ("Bearer   k", "k"),
        ("Bearer k \t", "k"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearerk", None),
        ("Bearer\tk", None),
        ("Basic k", None),
        ("k", None),
        ("", None),
    ],
)
def test_the_scheme_has_no_case_and_one_or_more_spaces_after_it(authorization: str, token: str | None) -> None:
    assert bearer_token(authorization) == token


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (["wait=5"], 5),
        (["Wait=5"], 5),
        (["WAIT = 5"], 5),
        (['wait="5"'], 5),
        (["wait=5; x=y"], 5),
        (["wait=5;x"], 5),
        (["respond-async, wait=5"], 5),
        (["respond-async", "wait=5"], 5),
        (["return=minimal;wait=9, wait=5"], 5),
        (['foo="a, wait=9", wait=5'], 5),
        (["wait=5, wait=9"], 5),
        ([",, wait=5,"], 5),
        (["wait=007"], 7),
        ([f"wait={'9' * 5000}"], float("inf")),
        (['foo="a,wait=5"'], None),
        (['foo="a\\",wait=5'], None),
        (["foo; wait=5"], None),
        (["awaiting=5"], None),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=5.5"], None),
        (["wait=\u0665"], None),
        (["wait=x, wait=5"], None),
        ([""], None),
        ([], None),
    ],
)
def test_the_wait_of_prefer_is_read_as_rfc_7240_says(lines: list[str], seconds: float | None) -> None:
    assert preferred_wait(lines) == seconds


@pytest.mark.parametrize(
    ("query", "prefer", "waits"),
    [
        (b"wait=60", b"", True),
        (b"%77ait=60", b"", True),
        (b"a=b&w%61it=1", b"", True),
        (b"await=60", b"", False),
        (b"a=wait=60", b"", False),
        (b"", b"Wait=5", True),
        (b"", b'foo="a,wait=5"', False),
        (b"", b"no-waiting", False),
    ],
)
def test_a_call_that_waits_is_told_by_what_the_query_and_prefer_mean(query: bytes, prefer: bytes, waits: bool) -> None:
    assert asks_to_wait([(b"prefer", prefer)], query) is waits


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["a=b", "c=d"], {"a": "b", "c": "d"}),
        (["a=b;c=d ;\te=f"], {"a": "b", "c": "d", "e": "f"}),
        (["a=1; a=2", "a=3"], {"a": "1"}),
        (["A=1; a=2"], {"A": "1", "a": "2"}),
        (["a=b=c"], {"a": "b=c"}),
        (["a; =b"], {"a": "", "": "b"}),
        (["\xa0a=b"], {"\xa0a": "b"}),
        ([], {}),
    ],
)
def test_cookies_of_all_lines_are_read(lines: list[str], expected: dict[str, str]) -> None:
    assert cookies(lines) == expected


@pytest.mark.parametrize(
    ("text", "name", "charset"),
    [
        ("application/json", "application/json", None),
        ("Application/JSON ; Charset=UTF-8", "application/json", "UTF-8"),
        ('application/json;charset="utf-8"', "application/json", "utf-8"),
        ('a/b; x="; charset=latin-1"', "a/b", None),
        ("a/b;charset=x;charset=y", "a/b", "x"),
        ("", "", None),
        (";", "", None),
    ],
)
def test_a_media_type_has_no_case_and_parameters(text: str, name: str, charset: str | None) -> None:
    read = media_type(text)
    assert (read.name, read.parameters.get("charset")) == (name, charset)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (['"t"'], True),
        (['W/"t"'], True),
        (['"a", "t"'], True),
        (['"a"', 'W/"t"'], True),
        (["*"], True),
        ([" * "], True),
        (['"a", *'], False),
        (['"a,t"'], False),
        (["t"], False),
        (['"T"'], False),
        ([], False),
    ],
)
def test_entity_tags_are_compared_weakly_over_all_lines(lines: list[str], named: bool) -> None:
    assert names_entity(lines, '"t"') is named


def test_lists_of_tokens_are_joined_over_lines_without_case() -> None:
    assert tokens(["Close, X-One ,", "x-two"]) == ["close", "x-one", "x-two"]


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        (["12"], 12),
        (["000"], 0),
        (["012"], 12),
        (["²"], None),
        (["+1"], None),
        (["-1"], None),
        (["1", "1"], None),
        (["9" * 40], None),
        ([""], None),
        ([], None),
    ],
)
def test_a_content_length_is_one_number(lines: list[str], length: int | None) -> None:
    assert content_length(lines) == length


@pytest.mark.parametrize("hostile", ['"' + '\\"' * 16_000, '"\\' * 16_000, '"' * 32_000, ",;" * 16_000, "=" * 32_000])
def test_hostile_headers_are_read_in_one_pass(hostile: str) -> None:
    assert preferred_wait([hostile]) is None
    assert media_type(hostile).parameters.get("charset") is None
    assert cookies([hostile]).get("flotilla") is None

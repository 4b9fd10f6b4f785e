"""Server-sent events, cut anywhere, as the HTML standard has them."""

from collections.abc import Iterator

import pytest

from command_line.event_stream import StreamEvent, parse_events


def data_of(body: bytes) -> list[str]:
    return [event.data for event in parse_events([body])]


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
def test_each_line_end_of_the_standard_ends_a_line(line_end: str) -> None:
    body = f"id: 1-1{line_end}data: one{line_end}data: two{line_end}{line_end}data: three{line_end}{line_end}"
    first, second = parse_events([body.encode()])
    assert first == StreamEvent("one\ntwo", "message", "1-1")
    assert (second.data, second.last_event_id) == ("three", "1-1")


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_no_other_character_ends_a_line(character: str) -> None:
    assert data_of(f"data: one{character}two\n\n".encode()) == [f"one{character}two"]


@pytest.mark.parametrize(
    ("body", "data"),
    [
        ("data:one\n\n", ["one"]),
        ("data:  one\n\n", [" one"]),
        ("data: a: b\n\n", ["a: b"]),
        ("data\n\ndata\ndata\n\ndata:", ["", "\n"]),
        (": heartbeat\n\n:\n\ndata: one\n\n", ["one"]),
        ("retry: 1000\n\ndata: one\n\n", ["one"]),
        ("Data: one\nother: two\n\n", []),
        ("\ufeffdata: one\n\n", ["one"]),
        ("data: \ufeffone\n\n", ["\ufeffone"]),
        ("data: one\n\ndata: cut off\n", ["one"]),
        ("data: one\n\ndata: cut off", ["one"]),
    ],
)
def test_fields_are_read_as_the_standard_has_them(body: str, data: list[str]) -> None:
    assert data_of(body.encode()) == data


def test_types_and_ids_are_those_of_the_stream() -> None:
    body = b"event: ping\nid: 1\ndata: a\n\ndata: b\n\nid: bad\0id\ndata: c\n\nid\ndata: d\n\n"
    assert list(parse_events([body])) == [
        StreamEvent("a", "ping", "1"),
        StreamEvent("b", "message", "1"),
        StreamEvent("c", "message", "1"),
        StreamEvent("d", "message", ""),
    ]


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert data_of(b"data: a\xffb\n\n") == ["a\ufffdb"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_a_body_may_be_cut_at_every_byte(size: int) -> None:
    body = "\ufeffid: 1-1\r\ndata: höher\u2028\r\n\r\n: x\r\rdata: zwei\rdata: \U0001f600\r\rdata: three\n\n".encode()
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    assert list(parse_events(chunks)) == list(parse_events([body]))
    assert [event.data for event in parse_events(chunks)] == ["höher\u2028", "zwei\n\U0001f600", "three"]


def test_an_event_comes_as_soon_as_its_empty_line_is_there() -> None:
    seen: list[str] = []

    def chunks() -> Iterator[bytes]:
        yield b"data: one\r\r"
        seen.append("asked for more")
        yield b"\ndata: two\n\n"

    seen.extend(event.data for event in parse_events(chunks()))
    assert seen == ["one", "asked for more", "two"]

"""Server-sent events, parsed as the HTML standard has it (section 9.2.6, interpreting an event stream).

A line ends with CR, LF or CRLF and with nothing else: U+2028 and U+0085, at which `str.splitlines` ends one too, are
text.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_LINE_END: Final = re.compile("\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a stream.

    Attributes:
        data: its `data` lines, joined by line feeds.
        type: `message` where the stream names none.
        last_event_id: the last `id` so far, from which a client resumes; empty where there was none.
    """

    data: str
    type: str
    last_event_id: str


def parse_events(chunks: Iterable[bytes]) -> Iterator[StreamEvent]:
    """Yield the events of a stream, each as soon as the empty line after it is there.

    An event that the end of the stream cuts off is dropped.

    Args:
        chunks: the body, cut anywhere.
    """
    data: list[str] = []
    type_ = last_event_id = ""
    for line in _lines(chunks):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "data":
                data.append(value)
            case "event":
                type_ = value
            case "id" if "\0" not in value:
                last_event_id = value
            case "" if not line:
                if data:
                    yield StreamEvent("\n".join(data), type_ or "message", last_event_id)
                data, type_ = [], ""
            case _:  # a comment, `retry`, or a field that the standard does not have
                pass


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines that have ended; a CR ends its line at once, and an LF right after it ends none."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")  # it also drops a byte order mark
    unfinished, after_return = "", False
    for chunk in chunks:
        text = decoder.decode(chunk)
        if not text:
            continue
        if after_return:
            text = text.removeprefix("\n")
        after_return = text.endswith("\r")
        *lines, unfinished = _LINE_END.split(unfinished + text)
        yield from lines

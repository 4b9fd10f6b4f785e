"""The headers of HTTP that several services read, parsed as their RFCs define them; each kind has one parser here.

The gateway, the services behind it and mock-eventing use the same functions, so that a check and the code behind it
never read one header in two ways. Names are compared without regard to case, white space around a value is no part of
it, and a comma or semicolon inside a quoted string separates nothing (RFC 9110, section 5).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

type RawHeaders = Iterable[tuple[bytes, bytes]]
"""Headers as ASGI has them, with names in lower case."""

WHITE_SPACE: Final = " \t"
"""Optional white space around a value: spaces and tabs, and no other character that Python's `strip` removes."""
_QUOTED: Final = r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)'
"""A quoted string; one that is never closed reaches to the end of the header."""
_SEPARATED: Final = {separator: re.compile(rf'(?:{_QUOTED}|[^"{separator}])+', re.DOTALL) for separator in (",", ";")}
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_DIGITS: Final = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type.

    Attributes:
        name: such as `application/json`, in lower case.
        parameters: by name in lower case, such as `charset`; of a repeated one, the first.
    """

    name: str
    parameters: Mapping[str, str]


def lines_of(headers: RawHeaders, name: bytes) -> list[str]:
    """Return the value of each line of one header; the connection has removed the white space around it."""
    return [value.decode("latin-1") for header, value in headers if header == name]


def bearer_token(authorization: str) -> str | None:
    """Return the token of an Authorization header (RFC 9110, 11.4, and RFC 6750); None for another scheme.

    The scheme has no case, and one or more spaces follow it.
    """
    scheme, space, token = authorization.strip(WHITE_SPACE).partition(" ")
    token = token.lstrip(" ")
    return token if space and token and scheme.lower() == "bearer" else None


def cookies(lines: Iterable[str]) -> dict[str, str]:
    """Return the cookies of all Cookie lines by name (RFC 6265); the first of a repeated one, empty without `=`.

    A proxy that receives HTTP/2 may send each cookie in a line of its own (RFC 9113, 8.2.3).
    """
    found: dict[str, str] = {}
    for line in lines:
        for pair in line.split(";"):
            name, _, value = pair.partition("=")
            found.setdefault(name.strip(WHITE_SPACE), value.strip(WHITE_SPACE))
    return found


def preferred_wait(lines: Iterable[str]) -> float | None:
    """Return the seconds of `Prefer: wait=N` (RFC 7240), or None without a valid one.

    Names have no case, parameters may follow the value, and only the first of a repeated preference counts.
    """
    for line in lines:
        for preference in _members(line, ","):
            name, value = _pair((_members(preference, ";") or [""])[0])
            if name == "wait":
                return float(value) if _DIGITS.fullmatch(value) else None
    return None


def asks_to_wait(headers: RawHeaders, query: bytes) -> bool:
    """Tell whether a call asks to wait for its result, by `Prefer: wait=N` or by the query parameter `wait`."""
    if query and any(name == "wait" for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)):
        return True
    return preferred_wait(lines_of(headers, b"prefer")) is not None


def media_type(content_type: str) -> MediaType:
    """Return the media type in a Content-Type header."""
    name, *rest = _members(content_type, ";") or [""]
    parameters: dict[str, str] = {}
    for parameter in rest:
        parameters.setdefault(*_pair(parameter))
    return MediaType(name.lower(), parameters)


def names_entity(lines: Iterable[str], etag: str) -> bool:
    """Tell whether the lines of If-None-Match name an entity tag, or any with `*`.

    The comparison is weak (RFC 9110, 8.8.3.2), because proxies turn strong tags into weak ones.
    """
    joined = ", ".join(lines)
    return joined.strip(WHITE_SPACE) == "*" or etag in _ENTITY_TAG.findall(joined)


def tokens(lines: Iterable[str]) -> Sequence[str]:
    """Return the members of a list of tokens in lower case, such as of Connection or Content-Encoding."""
    return [member.lower() for line in lines for member in _members(line, ",")]


def content_length(lines: Sequence[str]) -> int | None:
    """Return the number of bytes in a Content-Length header; None where there is none, or no such number."""
    if len(lines) != 1 or not _DIGITS.fullmatch(lines[0]) or len(lines[0].lstrip("0")) > 18:
        return None
    return int(lines[0].lstrip("0") or "0")


def _members(text: str, separator: str) -> list[str]:
    """Return the members between separators outside of quoted strings; empty ones do not count."""
    return [member for part in _SEPARATED[separator].findall(text) if (member := part.strip(WHITE_SPACE))]


def _pair(text: str) -> tuple[str, str]:
    """Return a name in lower case and its value, without the quotes of a quoted string."""
    name, _, value = text.partition("=")
    value = value.strip(WHITE_SPACE)
    if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
        value = _ESCAPED.sub(r"\1", value[1:-1])
    return name.strip(WHITE_SPACE).lower(), value

"""How commands print: results go to stdout, everything else goes to stderr.

A model repeats text that strangers wrote, and a terminal obeys control characters in it: they can set the title, clear
the screen or write the clipboard. On a terminal they are replaced; a pipe or a file gets the exact text.
"""

import sys
import unicodedata
from io import TextIOWrapper
from typing import Final

import click

_BIDIRECTIONAL_CONTROLS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""These reorder the text around them, so that a line reads as something else than it is."""


def prepare_stdout() -> None:
    """Let a character that stdout cannot encode become `?` instead of ending the command."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def print_result(text: str, *, end: str = "\n") -> None:
    """Write a part of the result to stdout, at once."""
    sys.stdout.write((harmless(text) if sys.stdout.isatty() else text) + end)
    sys.stdout.flush()


def print_note(text: str) -> None:
    """Write a line to stderr that is not a part of the result."""
    click.secho(harmless(text), err=True, dim=True)


def print_error(text: str) -> None:
    """Write to stderr why a command has failed."""
    click.secho(harmless(text), err=True, fg="red")


def harmless(text: str) -> str:
    """Return a text that a terminal shows and does not obey; each character in question becomes U+FFFD.

    Line feeds and tabs stay. Carriage returns go: a terminal would write over the line, and they mostly belong to a
    CRLF.
    """
    return "".join(_harmless(character) for character in text)


def _harmless(character: str) -> str:
    if character in "\n\t":
        return character
    if character == "\r":
        return ""
    if character in _BIDIRECTIONAL_CONTROLS or unicodedata.category(character) in {"Cc", "Cs"}:
        return "\ufffd"
    return character

"""A terminal shows what strangers wrote, and does not obey it."""

import unicodedata

import pytest

from command_line.output import harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x1b]0;owned\x07", "\ufffd]0;owned\ufffd"),
        ("\x1b[2J\x9b2J", "\ufffd[2J\ufffd2J"),
        ("a\x08b\x7f\x00", "a\ufffdb\ufffd\ufffd"),
        ("line\r\nnext\rover", "line\nnextover"),
        ("abc\u202edcba", "abc\ufffddcba"),
        ("half \ud800 a pair", "half \ufffd a pair"),
        ("Ärger 日本語 👩\u200d🚀 \u2028", "Ärger 日本語 👩\u200d🚀 \u2028"),
    ],
)
def test_controls_are_replaced_and_writing_stays(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_no_control_character_of_unicode_is_left() -> None:
    everything = "".join(map(chr, range(0x3000)))
    left = {character for character in harmless(everything) if unicodedata.category(character) == "Cc"}
    assert left == {"\n", "\t"}
